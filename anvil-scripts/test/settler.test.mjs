// BatchSettler with the real USDC: a payer's wallet that burns all gas costs its own cap and nobody's payment.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeFunctionData, keccak256, parseSignature, toHex } from "viem";
import { artifactOf } from "../lib/code.mjs";
import { include } from "../lib/mining.mjs";
import { authorize } from "../lib/payment.mjs";
import { chain, TOKEN, TOPIC } from "./support.mjs";

const SETTLER = "0x00000000000000000000000000000000005E771E";
const BURNER = "0x000000000000000000000000000000000000B012";
const CAP = 85_000n;
const CALL_FAILED = keccak256(toHex("CallFailed(uint256)"));

test("the honest are paid beside a payer whose wallet burns all gas", async (t) => {
  const node = await chain(t, "--no-mining");
  const { abi, deployedBytecode } = artifactOf("BatchSettler");
  await node.rpc("anvil_setCode", SETTLER, deployedBytecode);
  await node.rpc("anvil_setCode", BURNER, artifactOf("GasBurner").deployedBytecode);
  // As EIP-7702 writes a delegation.
  await node.rpc("anvil_setCode", node.payers[3].address, `0xef0100${BURNER.slice(2)}`);

  const calls = await Promise.all(node.payers.map(async (payer) => ({ ...(await call(node, payer)), gasCap: CAP })));
  const data = encodeFunctionData({ abi, functionName: "settle", args: [calls] });
  // The limit of contracts/README.md.
  const gas = intrinsic(data) + 10_000n + CAP / 63n + BigInt(calls.length) * (CAP + 2_500n);
  await node.rpc("anvil_impersonateAccount", node.wallet.address);
  const transaction = { from: node.wallet.address, to: SETTLER, data, gas: toHex(gas) };
  const hash = await node.rpc("eth_sendTransaction", transaction);
  await include(node.rpc, [hash]);
  const receipt = await node.rpc("eth_getTransactionReceipt", hash);

  assert.equal(receipt.status, "0x1");
  const own = receipt.logs.filter(({ address }) => BigInt(address) === BigInt(SETTLER));
  assert.deepEqual(own.map(({ topics }) => topics), [[CALL_FAILED, toHex(3, { size: 32 })]]);
  const payers = receipt.logs.filter(({ topics }) => topics[0] === TOPIC.authorizationUsed).map(({ topics }) => BigInt(topics[1]));
  const honest = node.payers.filter((_, n) => n !== 3);
  assert.deepEqual(payers, honest.map(({ address }) => BigInt(address)));
  assert.ok(BigInt(receipt.gasUsed) < 8n * CAP);
});

async function call(node, { privateKey }) {
  const token = { name: node.usdcName, version: node.usdcVersion, address: node.usdc };
  const now = Math.floor(Date.now() / 1000);
  const payTo = node.payee.address;
  const paid = await authorize({ chain: node, token, payerKey: privateKey, payTo, amount: "12345", now });
  const { from, to, value, validAfter, validBefore, nonce } = paid.authorization;
  const { r, s, v } = parseSignature(paid.signature);
  const args = [from, to, BigInt(value), BigInt(validAfter), BigInt(validBefore), nonce, Number(v), r, s];
  return { target: node.usdc, data: encodeFunctionData({ abi: TOKEN, functionName: "transferWithAuthorization", args }) };
}

function intrinsic(data) {
  return Buffer.from(data.slice(2), "hex").reduce((sum, byte) => sum + (byte === 0 ? 4n : 16n), 21_000n);
}
