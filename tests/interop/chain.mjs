// What the chain says about a payment. The tests believe this, and not what a service answered.

import assert from "node:assert/strict";

import { createPublicClient, getAddress, http, isAddressEqual, parseAbi, parseEventLogs } from "viem";

const USDC_ABI = parseAbi([
  "function balanceOf(address account) view returns (uint256)",
  "function authorizationState(address authorizer, bytes32 nonce) view returns (bool)",
  "event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce)",
  "event Transfer(address indexed from, address indexed to, uint256 value)",
]);

/** Opens the chain that `quittance dev` runs on. */
export function openChain({ rpcUrl, usdc }) {
  const client = createPublicClient({ transport: http(rpcUrl), cacheTime: 0 });
  const read = (functionName, args) => client.readContract({ address: usdc, abi: USDC_ABI, functionName, args });

  const balanceOf = (address) => read("balanceOf", [address]);

  const transfersTo = (payee) =>
    client.getContractEvents({
      address: usdc,
      abi: USDC_ABI,
      eventName: "Transfer",
      args: { to: payee },
      fromBlock: 0n,
      strict: true,
    });

  return {
    balanceOf,

    /** Every transfer that the payee ever received: who paid, how much, in which transaction. */
    async receivedBy(payee) {
      const logs = await transfersTo(payee);
      return logs.map((log) => ({ payer: getAddress(log.args.from), amount: log.args.value, transaction: log.transactionHash }));
    },

    /**
     * The transaction is mined and succeeded, and in it this payer's authorization moved exactly `amount` to the payee.
     * Other payments may share the transaction: the token logs each authorization right before its own transfer.
     */
    async assertMoved({ transaction, payer, payee, nonce, amount }) {
      const receipt = await client.getTransactionReceipt({ hash: transaction });
      assert.equal(receipt.status, "success", `${transaction} did not succeed`);
      const logs = parseEventLogs({ abi: USDC_ABI, logs: receipt.logs.filter((log) => isAddressEqual(log.address, usdc)) });
      const used = logs.filter((log) => log.eventName === "AuthorizationUsed" && log.args.nonce === nonce);
      assert.equal(used.length, 1, `${transaction} uses authorization nonce ${nonce} ${used.length} times`);
      assert.ok(isAddressEqual(used[0].args.authorizer, payer), `${transaction} uses another payer's authorization`);
      const transfer = logs.find((log) => log.logIndex === used[0].logIndex + 1);
      assert.equal(transfer?.eventName, "Transfer", `${transaction} moves nothing for authorization nonce ${nonce}`);
      assert.deepEqual(transfer.args, { from: getAddress(payer), to: getAddress(payee), value: amount });
      assert.equal(await read("authorizationState", [payer, nonce]), true);
    },

    /** Remembers both balances; the functions it returns compare them with what they became. */
    async watch({ payer, payee }) {
      const before = { payer: await balanceOf(payer), payee: await balanceOf(payee) };
      const transfersBefore = (await transfersTo(payee)).length;
      const assertChange = async (amount, nTransfers) => {
        assert.equal(await balanceOf(payer), before.payer - amount, "the payer's balance");
        assert.equal(await balanceOf(payee), before.payee + amount, "the payee's balance");
        assert.equal((await transfersTo(payee)).length, transfersBefore + nTransfers, "the payee's transfers");
      };
      return {
        assertPaidOnce: (amount) => assertChange(amount, 1),
        async assertUnmoved({ nonce } = {}) {
          await assertChange(0n, 0);
          if (nonce !== undefined) assert.equal(await read("authorizationState", [payer, nonce]), false);
        },
      };
    },
  };
}
