// The example of docs/policies.md, as it stands there, and what comes of it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

import { freshPayee, payers } from "./accounts.mjs";
import { BASE } from "./networks.mjs";
import { startQuittance } from "./quittance.mjs";
import { secondsFromNow, signTransfer } from "./signed-payments.mjs";

const [account, owner] = payers;

let quittance;
before(async () => {
  quittance = await startQuittance(BASE);
});
after(() => quittance?.stop());

describe("a spending policy signed with viem", { timeout: 60_000 }, () => {
  it("is registered by the documented example, and holds", async () => {
    assert.equal(await verdict(100_001n), true);

    const told = await runExample();

    assert.match(told, /^201 .*kind: 'policy'/s);
    // What verification knows may be a second behind.
    await new Promise((done) => setTimeout(done, 1_000));
    assert.equal(await verdict(100_001n), "spending_policy_exceeded");
    assert.equal(await verdict(100_000n), true);
  });
});

/** Runs the only JavaScript of the document, in this folder, where viem is. */
async function runExample() {
  const document = readFileSync(new URL("../../docs/policies.md", import.meta.url), "utf8");
  const [, example] = document.match(/```js\n(.*?)```/s);
  const env = {
    ...process.env,
    QUITTANCE_URL: quittance.url,
    CHAIN_ID: String(quittance.chainId),
    USDC_ADDRESS: quittance.usdc,
    ACCOUNT_KEY: account.privateKey,
    OWNER_ADDRESS: owner.address,
  };
  const run = promisify(execFile)(process.execPath, ["--input-type=module", "--eval", example], {
    cwd: import.meta.dirname,
    env,
  });
  return (await run).stdout;
}

/** True, or why not. */
async function verdict(amount) {
  const payee = freshPayee();
  const requirements = {
    scheme: "exact",
    network: BASE.v2,
    amount: amount.toString(),
    asset: quittance.usdc,
    payTo: payee,
    maxTimeoutSeconds: 60,
    extra: BASE.domain,
  };
  const payload = await signTransfer({
    account,
    network: BASE,
    usdc: quittance.usdc,
    payee,
    amount,
    validBefore: secondsFromNow(60),
  });
  const answer = await fetch(`${quittance.url}/verify`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${quittance.apiKey}` },
    body: JSON.stringify({
      x402Version: 2,
      paymentPayload: { x402Version: 2, accepted: requirements, payload },
      paymentRequirements: requirements,
    }),
  });
  const body = await answer.json();
  return body.isValid || body.invalidReason;
}
