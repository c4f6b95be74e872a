// The documented HTTP, without any SDK: what a merchant in another language writes.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";

import { freshPayee, payers } from "./accounts.mjs";
import { openChain } from "./chain.mjs";
import { BASE } from "./networks.mjs";
import { startQuittance } from "./quittance.mjs";
import { secondsFromNow, signTransfer } from "./signed-payments.mjs";

const AMOUNT = 10_000n;
const [account] = payers;

let quittance;
let chain;
before(async () => {
  quittance = await startQuittance(BASE);
  chain = openChain(quittance);
});
after(() => quittance?.stop());

describe("over plain HTTP", { timeout: 60_000 }, () => {
  it("verify accepts a good payment, names its payer, and moves nothing", async () => {
    const { question, payee } = await signedQuestion();
    const watch = await chain.watch({ payer: account.address, payee });

    const answer = await post("/verify", question);

    assert.equal(answer.status, 200);
    assert.equal(answer.body.isValid, true);
    assert.equal(answer.body.payer.toLowerCase(), account.address.toLowerCase());
    assert.ok(answer.headers.get("X-Request-Id"));
    await watch.assertUnmoved({ nonce: question.paymentPayload.payload.authorization.nonce });
  });

  it("settle needs no verify before it, and pays", async () => {
    const { question, payee, nonce } = await signedQuestion();
    const watch = await chain.watch({ payer: account.address, payee });

    const answer = await post("/settle", question);

    assert.equal(answer.status, 200);
    assert.equal(answer.body.success, true);
    assert.equal(answer.body.network, BASE.v2);
    assert.equal(answer.body.payer.toLowerCase(), account.address.toLowerCase());
    await chain.assertMoved({ transaction: answer.body.transaction, payer: account.address, payee, nonce, amount: AMOUNT });
    await watch.assertPaidOnce(AMOUNT);
  });

  it("the key may also be sent as X-API-Key", async () => {
    const { question } = await signedQuestion();
    const answer = await post("/verify", question, { Authorization: undefined, "X-API-Key": quittance.apiKey });
    assert.deepEqual([answer.status, answer.body.isValid], [200, true]);
  });

  for (const [name, headers] of [
    ["without a key", { Authorization: undefined }],
    ["with a wrong key", { Authorization: "Bearer qk_test_wrong" }],
  ]) {
    it(`${name}, both questions are refused with 401 in the protocol's shape, and nothing moves`, async () => {
      const { question, payee, nonce } = await signedQuestion();
      const watch = await chain.watch({ payer: account.address, payee });

      const verified = await post("/verify", question, headers);
      const settled = await post("/settle", question, headers);

      assert.deepEqual([verified.status, verified.body.isValid], [401, false]);
      assert.deepEqual([settled.status, settled.body.success, settled.body.transaction], [401, false, ""]);
      assert.equal(typeof settled.body.network, "string");
      await watch.assertUnmoved({ nonce });
    });
  }

  it("a repeated request receives the first answer, marked as replayed", async () => {
    const { question, payee } = await signedQuestion();
    const key = { "Idempotency-Key": randomUUID() };
    const watch = await chain.watch({ payer: account.address, payee });

    const first = await post("/settle", question, key);
    const again = await post("/settle", question, key);

    assert.deepEqual([first.status, first.body.success], [200, true]);
    assert.equal(first.headers.get("Idempotent-Replayed"), null);
    assert.equal(again.status, 200);
    assert.deepEqual(again.body, first.body);
    assert.equal(again.headers.get("Idempotent-Replayed"), "true");
    await watch.assertPaidOnce(AMOUNT);
  });

  it("another request for a settled payment is a duplicate, and is told the transaction", async () => {
    const { question, payee } = await signedQuestion();
    const watch = await chain.watch({ payer: account.address, payee });
    const first = await post("/settle", question, { "Idempotency-Key": randomUUID() });
    assert.equal(first.body.success, true);

    for (const headers of [{ "Idempotency-Key": randomUUID() }, {}]) {
      const again = await post("/settle", question, headers);
      assert.equal(again.status, 200);
      assert.equal(again.body.success, false);
      assert.equal(again.body.errorReason, "duplicate_settlement");
      assert.equal(again.body.transaction, first.body.transaction);
      assert.equal(again.body.network, BASE.v2);
      assert.equal(again.headers.get("Idempotent-Replayed"), null);
    }
    await watch.assertPaidOnce(AMOUNT);
  });

  it("a payment settled without a key is a duplicate for every later request", async () => {
    const { question, payee } = await signedQuestion();
    const watch = await chain.watch({ payer: account.address, payee });
    const first = await post("/settle", question);
    assert.equal(first.body.success, true);

    for (const headers of [{}, { "Idempotency-Key": randomUUID() }]) {
      const again = await post("/settle", question, headers);
      assert.deepEqual([again.body.success, again.body.errorReason], [false, "duplicate_settlement"]);
      assert.equal(again.body.transaction, first.body.transaction);
    }
    await watch.assertPaidOnce(AMOUNT);
  });

  it("a key used again for another payment is a conflict, and the other payment is not made", async () => {
    const first = await signedQuestion();
    const other = await signedQuestion();
    const key = { "Idempotency-Key": randomUUID() };
    assert.equal((await post("/settle", first.question, key)).body.success, true);
    const watch = await chain.watch({ payer: account.address, payee: other.payee });

    const answer = await post("/settle", other.question, key);

    assert.equal(answer.status, 409);
    assert.deepEqual([answer.body.success, answer.body.transaction], [false, ""]);
    await watch.assertUnmoved({ nonce: other.nonce });
  });

  it("ten equal settlements at once succeed once", async () => {
    const { question, payee, nonce } = await signedQuestion();
    const watch = await chain.watch({ payer: account.address, payee });

    const answers = await Promise.all(Array.from({ length: 10 }, () => post("/settle", question)));

    const successes = answers.filter(({ body }) => body.success);
    assert.equal(successes.length, 1);
    for (const { status, body } of answers.filter(({ body }) => !body.success)) {
      assert.deepEqual([status, body.errorReason], [200, "duplicate_settlement"]);
    }
    const [{ body }] = successes;
    await chain.assertMoved({ transaction: body.transaction, payer: account.address, payee, nonce, amount: AMOUNT });
    await watch.assertPaidOnce(AMOUNT);
  });
});

/** A question for `/verify` or `/settle`, correctly signed, to a payee of its own. */
async function signedQuestion() {
  const payee = freshPayee();
  const { usdc } = quittance;
  const validBefore = secondsFromNow(300);
  const payload = await signTransfer({ account, network: BASE, usdc, payee, amount: AMOUNT, validBefore });
  const terms = {
    scheme: "exact",
    network: BASE.v2,
    amount: AMOUNT.toString(),
    asset: usdc,
    payTo: payee,
    maxTimeoutSeconds: 300,
    extra: BASE.domain,
  };
  const question = { x402Version: 2, paymentPayload: { x402Version: 2, payload, accepted: terms }, paymentRequirements: terms };
  return { question, payee, nonce: payload.authorization.nonce };
}

/** A header that is `undefined` is not sent. */
async function post(path, question, headers = {}) {
  const all = { "Content-Type": "application/json", Authorization: `Bearer ${quittance.apiKey}`, ...headers };
  const sent = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  const response = await fetch(`${quittance.url}${path}`, { method: "POST", headers: sent, body: JSON.stringify(question) });
  return { status: response.status, headers: response.headers, body: await response.json() };
}
