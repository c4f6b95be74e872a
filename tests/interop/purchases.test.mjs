// The official SDKs sell and buy through Quittance, in both protocol versions.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { HTTPFacilitatorClient } from "@x402/core/server";
import { useFacilitator } from "x402/verify";

import { freshPayee, pauper, payers } from "./accounts.mjs";
import { buyerV1, buyerV2, nonceIn, paymentIn } from "./buyers.mjs";
import { openChain } from "./chain.mjs";
import { BASE } from "./networks.mjs";
import { startQuittance } from "./quittance.mjs";
import { openSellerV1 } from "./seller-v1.mjs";
import { openSellerV2 } from "./seller-v2.mjs";
import { WEATHER } from "./serve.mjs";
import { secondsFromNow, signTransfer } from "./signed-payments.mjs";

const PRICE = "$0.01";
const AMOUNT = 10_000n;
const TEST_MS_MAX = 30_000;

let quittance;
let chain;
before(async () => {
  quittance = await startQuittance(BASE);
  chain = openChain(quittance);
});
after(() => quittance?.stop());

const versions = [
  { name: "v2", network: BASE.v2, buyer: buyerV2, openSeller: openSellerV2 },
  { name: "v1", network: BASE.v1, buyer: buyerV1, openSeller: openSellerV1 },
];

for (const { name, network, buyer, openSeller } of versions) {
  describe(`with the ${name} SDK`, { timeout: TEST_MS_MAX }, () => {
    const openShop = async (t, options = {}) => {
      const payee = freshPayee();
      const seller = await openSeller({ quittance, network: BASE, payee, price: PRICE, ...options });
      t.after(() => seller.close());
      return { payee, seller };
    };

    it("a buyer pays and receives the content and a true receipt", async (t) => {
      const { payee, seller } = await openShop(t);
      const [account] = payers;
      const watch = await chain.watch({ payer: account.address, payee });

      const answer = await buyer.buy({ account, network: BASE, url: seller.url });

      assert.equal(answer.status, 200);
      assert.deepEqual(answer.body, WEATHER);
      assert.equal(answer.receipt.success, true);
      assert.equal(answer.receipt.network, network);
      assert.equal(answer.receipt.payer.toLowerCase(), account.address.toLowerCase());
      const nonce = nonceIn(answer.header);
      await chain.assertMoved({ transaction: answer.receipt.transaction, payer: account.address, payee, nonce, amount: AMOUNT });
      await watch.assertPaidOnce(AMOUNT);
    });

    it("a buyer without money is refused for the balance, and the chain does not move", async (t) => {
      const { payee, seller } = await openShop(t);
      const watch = await chain.watch({ payer: pauper.address, payee });

      const answer = await buyer.buy({ account: pauper, network: BASE, url: seller.url });

      assert.equal(answer.status, 402);
      assert.equal(answer.refusal, "invalid_exact_evm_insufficient_balance");
      await watch.assertUnmoved({ nonce: nonceIn(answer.header) });
    });

    it("an expired payment is refused for its time, and the chain does not move", async (t) => {
      const { payee, seller } = await openShop(t);
      const [, account] = payers;
      const terms = await buyer.askForTerms(seller.url);
      const validBefore = secondsFromNow(-60);
      const payload = await signTransfer({ account, network: BASE, usdc: quittance.usdc, payee, amount: AMOUNT, validBefore });
      const watch = await chain.watch({ payer: account.address, payee });

      const answer = await buyer.present({ url: seller.url, header: buyer.seal(payload, terms) });

      assert.equal(answer.status, 402);
      assert.equal(answer.refusal, "invalid_exact_evm_payload_authorization_valid_before");
      await watch.assertUnmoved({ nonce: payload.authorization.nonce });
    });

    it("a payment sent again after it bought something buys nothing more", async (t) => {
      const { payee, seller } = await openShop(t);
      const [, , account] = payers;
      const watch = await chain.watch({ payer: account.address, payee });
      const { header, status } = await buyer.buy({ account, network: BASE, url: seller.url });
      assert.equal(status, 200);

      const replay = await buyer.present({ url: seller.url, header });

      assert.equal(replay.status, 402);
      assertSpent(replay.refusal);
      await watch.assertPaidOnce(AMOUNT);
    });

    it("a payment sent twice at the same time buys exactly one thing", async (t) => {
      const { payee, seller } = await openShop(t);
      const [, , , account] = payers;
      const terms = await buyer.askForTerms(seller.url);
      const validBefore = secondsFromNow(60);
      const payload = await signTransfer({ account, network: BASE, usdc: quittance.usdc, payee, amount: AMOUNT, validBefore });
      const header = buyer.seal(payload, terms);
      const watch = await chain.watch({ payer: account.address, payee });

      const answers = await Promise.all([1, 2].map(() => buyer.present({ url: seller.url, header })));

      const [sold, refused] = answers.sort((a, b) => a.status - b.status);
      assert.deepEqual([sold.status, refused.status], [200, 402]);
      assertSpent(refused.refusal);
      const { nonce } = payload.authorization;
      await chain.assertMoved({ transaction: sold.receipt.transaction, payer: account.address, payee, nonce, amount: AMOUNT });
      await watch.assertPaidOnce(AMOUNT);
    });

    it("a merchant with a wrong API key learns that the facilitator refused the key, not the payment", async (t) => {
      const { payee, seller } = await openShop(t, { apiKey: "qk_test_wrong" });
      const [, , , , account] = payers;
      const watch = await chain.watch({ payer: account.address, payee });
      // The v1 middleware prints what the facilitator threw.
      t.mock.method(console, "error", () => {});

      const answer = await buyer.buy({ account, network: BASE, url: seller.url });

      assert.equal(answer.status, 402, "the SDK answers 402 whenever verify throws");
      assert.match(answer.refusal, /unauthori[sz]ed|api.?key|\b401\b/i);
      assert.doesNotMatch(answer.refusal, /invalid_exact|insufficient|signature|unknown reason/i);
      const terms = await buyer.askForTerms(seller.url);
      const payment = paymentIn(answer.header);
      await assert.rejects(seller.facilitator.verify(payment, terms), { name: "VerifyError", statusCode: 401 });
      await assert.rejects(seller.facilitator.settle(payment, terms), { name: "SettleError", statusCode: 401 });
      await watch.assertUnmoved({ nonce: nonceIn(answer.header) });
    });
  });
}

/** Either check may see it first: verify that the authorization is used, settle that it was claimed. */
function assertSpent(refusal) {
  assert.ok(["invalid_exact_evm_nonce_already_used", "duplicate_settlement"].includes(refusal), `refused with ${refusal}`);
}

describe("the facilitator clients of the SDKs", { timeout: TEST_MS_MAX }, () => {
  const expected = versions.map(({ name, network }) => ({ x402Version: Number(name.slice(1)), scheme: "exact", network }));
  const clients = [
    { name: "v2", getSupported: () => new HTTPFacilitatorClient({ url: quittance.url }).getSupported() },
    { name: "v1", getSupported: () => useFacilitator({ url: quittance.url }).supported() },
  ];

  for (const { name, getSupported } of clients) {
    it(`the ${name} client reads without a key that exact is supported in both versions`, async () => {
      const { kinds } = await getSupported();
      const listed = kinds.map(({ x402Version, scheme, network }) => ({ x402Version, scheme, network }));
      for (const kind of expected) {
        assert.equal(listed.filter((other) => JSON.stringify(other) === JSON.stringify(kind)).length, 1, JSON.stringify(kind));
      }
    });
  }
});

describe("with the v2 SDK only", { timeout: TEST_MS_MAX }, () => {
  it("an upfront seller is paid before its handler runs, and never asks to verify", async (t) => {
    const payee = freshPayee();
    const [, , , , , account] = payers;
    const balanceInHandler = async () => ({ paidBeforeHandler: (await chain.balanceOf(payee)).toString() });
    const options = { network: BASE, payee, price: PRICE, paymentFlow: "upfront", content: balanceInHandler };
    const seller = await openSellerV2({ quittance, ...options });
    t.after(() => seller.close());
    const watch = await chain.watch({ payer: account.address, payee });

    const answer = await buyerV2.buy({ account, network: BASE, url: seller.url });

    assert.equal(answer.status, 200);
    assert.deepEqual(answer.body, { paidBeforeHandler: AMOUNT.toString() });
    assert.deepEqual(seller.asked, { verify: 0, settle: ["before-handler"] });
    const nonce = nonceIn(answer.header);
    await chain.assertMoved({ transaction: answer.receipt.transaction, payer: account.address, payee, nonce, amount: AMOUNT });
    await watch.assertPaidOnce(AMOUNT);
  });

  it("an upfront seller serves nothing for a payment that was spent", async (t) => {
    const payee = freshPayee();
    const [, , , , , , account] = payers;
    const seller = await openSellerV2({ quittance, network: BASE, payee, price: PRICE, paymentFlow: "upfront" });
    t.after(() => seller.close());
    const watch = await chain.watch({ payer: account.address, payee });
    const { header, receipt } = await buyerV2.buy({ account, network: BASE, url: seller.url });

    const replay = await buyerV2.present({ url: seller.url, header });

    assert.equal(replay.status, 402);
    assertSpent(replay.refusal);
    assert.notDeepEqual(replay.body, WEATHER);
    assert.equal(receipt.success, true);
    await watch.assertPaidOnce(AMOUNT);
  });

  it("twenty buyers at once all get the content, by twenty transfers of twenty authorizations", async (t) => {
    const payee = freshPayee();
    const seller = await openSellerV2({ quittance, network: BASE, payee, price: PRICE });
    t.after(() => seller.close());
    const accounts = Array.from({ length: 20 }, (_, index) => payers[index % payers.length]);
    const balancesBefore = await Promise.all(payers.map(({ address }) => chain.balanceOf(address)));

    const answers = await Promise.all(accounts.map((account) => buyerV2.buy({ account, network: BASE, url: seller.url })));

    assert.deepEqual(answers.map(({ status, refusal }) => refusal ?? status), Array(20).fill(200));
    assert.equal(new Set(answers.map(({ header }) => nonceIn(header))).size, 20);
    for (const [index, { header, receipt, body }] of answers.entries()) {
      assert.deepEqual(body, WEATHER);
      const payer = accounts[index].address;
      await chain.assertMoved({ transaction: receipt.transaction, payer, payee, nonce: nonceIn(header), amount: AMOUNT });
    }
    const received = await chain.receivedBy(payee);
    assert.deepEqual(received.map(({ amount }) => amount), Array(20).fill(AMOUNT));
    for (const [index, { address }] of payers.entries()) {
      const spent = AMOUNT * BigInt(accounts.filter((account) => account.address === address).length);
      assert.equal(await chain.balanceOf(address), balancesBefore[index] - spent);
    }
    t.diagnostic(`twenty payments shared ${new Set(received.map(({ transaction }) => transaction)).size} transactions`);
  });
});
