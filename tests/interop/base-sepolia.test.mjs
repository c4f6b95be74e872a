// The same purchase on the test network, whose token signs under another name.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { freshPayee, payers } from "./accounts.mjs";
import { buyerV1, buyerV2, nonceIn } from "./buyers.mjs";
import { openChain } from "./chain.mjs";
import { BASE_SEPOLIA } from "./networks.mjs";
import { startQuittance } from "./quittance.mjs";
import { openSellerV1 } from "./seller-v1.mjs";
import { openSellerV2 } from "./seller-v2.mjs";
import { WEATHER } from "./serve.mjs";

const AMOUNT = 10_000n;

let quittance;
let chain;
before(async () => {
  quittance = await startQuittance(BASE_SEPOLIA);
  chain = openChain(quittance);
});
after(() => quittance?.stop());

describe("on Base Sepolia", { timeout: 30_000 }, () => {
  for (const { name, network, buyer, openSeller } of [
    { name: "v2", network: BASE_SEPOLIA.v2, buyer: buyerV2, openSeller: openSellerV2 },
    { name: "v1", network: BASE_SEPOLIA.v1, buyer: buyerV1, openSeller: openSellerV1 },
  ]) {
    it(`a ${name} buyer pays and receives the content and a true receipt`, async (t) => {
      const payee = freshPayee();
      const [account] = payers;
      const seller = await openSeller({ quittance, network: BASE_SEPOLIA, payee, price: "$0.01" });
      t.after(() => seller.close());
      const watch = await chain.watch({ payer: account.address, payee });

      const answer = await buyer.buy({ account, network: BASE_SEPOLIA, url: seller.url });

      assert.equal(answer.status, 200);
      assert.deepEqual(answer.body, WEATHER);
      assert.deepEqual([answer.receipt.success, answer.receipt.network], [true, network]);
      const nonce = nonceIn(answer.header);
      await chain.assertMoved({ transaction: answer.receipt.transaction, payer: account.address, payee, nonce, amount: AMOUNT });
      await watch.assertPaidOnce(AMOUNT);
    });
  }
});
