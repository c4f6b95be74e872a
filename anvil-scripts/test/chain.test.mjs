// The chain that start.mjs makes is what it says it is.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeFunctionData, getContractAddress, parseAbi, parseSignature } from "viem";
import { CHAIN_IDS } from "../lib/chains.mjs";
import { artifactOf } from "../lib/code.mjs";
import { authorize } from "../lib/payment.mjs";
import { chain, sendAndMine, TOKEN, TOPIC, usdcOf, view } from "./support.mjs";

// As contracts/README.md says.
const BATCH_SETTLER = "0xdDb810Be1B0aEE8fA25f1e605e195A4E041F7258";
const DOMAIN_SEPARATOR = "0x3644e515";
const ETHER = 10n ** 18n;

for (const chainId of CHAIN_IDS) {
  test(`chain ${chainId}`, async (t) => {
    const node = await chain(t, "--chain-id", String(chainId));
    const token = { name: node.usdcName, version: node.usdcVersion, address: node.usdc };
    const code = (address) => node.rpc("eth_getCode", address, "latest");
    const call = (to, data) => node.rpc("eth_call", { to, data }, "latest");

    await t.test("says what it is in one line", () => {
      const expected = ["rpcUrl", "wsUrl", "chainId", "pid", "blockNumber", "usdc", "usdcName", "usdcVersion", "forked"];
      const people = ["wallet", "payers", "pauper", "payee", "stranger"];
      assert.deepEqual(Object.keys(JSON.parse(node.line)).sort(), [...expected, ...people].sort());
      assert.equal(node.forked, false);
      assert.match(node.rpcUrl, /^http:\/\/127\.0\.0\.1:\d+$/);
      assert.match(node.wsUrl, /^ws:\/\/127\.0\.0\.1:\d+$/);
    });

    await t.test("has the chain id, the gas limit and a low base fee", async () => {
      assert.equal(Number(await node.rpc("eth_chainId")), chainId);
      const block = await node.rpc("eth_getBlockByNumber", "latest", false);
      assert.equal(Number(block.number), node.blockNumber);
      assert.equal(Number(block.gasLimit), 400_000_000);
      assert.ok(Number(block.baseFeePerGas) <= 5_000_000);
      assert.ok(Number(block.timestamp) <= Date.now() / 1000 + 1);
    });

    await t.test("USDC and Permit2 have the domain separators that payers sign over", async () => {
      assert.equal(await call(node.usdc, DOMAIN_SEPARATOR), node.usdcDomain);
      assert.equal(await call(node.permit2, DOMAIN_SEPARATOR), node.permit2Domain);
    });

    await t.test("Multicall3 answers", async () => {
      const abi = parseAbi(["function getChainId() view returns (uint256)"]);
      assert.equal(Number(await view(node, node.multicall3, abi, "getChainId")), chainId);
    });

    await t.test("the accounts have no code, and what they are said to have", async () => {
      const everyone = [node.wallet, ...node.payers, node.pauper, node.payee, node.stranger];
      assert.equal(new Set(everyone.map(({ address }) => address)).size, 12);
      for (const { address } of everyone) assert.equal(await code(address), "0x");
      for (const { address } of node.payers) assert.equal(await usdcOf(node, address), 1_000_000_000_000n);
      assert.equal(node.payers.length, 8);
      assert.equal(await usdcOf(node, node.pauper.address), 0n);
      for (const { address } of [node.wallet, node.stranger]) {
        assert.equal(BigInt(await node.rpc("eth_getBalance", address, "latest")), 100n * ETHER);
      }
      const unlocked = await node.rpc("eth_accounts");
      for (const { address } of everyone) assert.ok(!unlocked.includes(address.toLowerCase()));
    });

    await t.test("a payment settles by v, r, s and by bytes, once", async () => {
      for (const overload of ["vrs", "bytes"]) {
        const before = await usdcOf(node, node.payee.address);
        const { signature, authorization } = await payment(node, token);
        // Overloads are told apart by the types of the values, so amounts and times must be numbers here.
        const { from, to, value, validAfter, validBefore, nonce } = authorization;
        const args = [from, to, BigInt(value), BigInt(validAfter), BigInt(validBefore), nonce];
        const { r, s, v } = parseSignature(signature);
        const data = encodeFunctionData({
          abi: TOKEN,
          functionName: "transferWithAuthorization",
          args: overload === "vrs" ? [...args, Number(v), r, s] : [...args, signature],
        });
        const receipt = await sendAndMine(node, node.wallet, node.usdc, data);
        assert.equal(receipt.status, "0x1");
        assert.deepEqual(receipt.logs.map(({ topics }) => topics[0]), [TOPIC.authorizationUsed, TOPIC.transfer]);
        assert.equal(await usdcOf(node, node.payee.address), before + 12_345n);

        const used = await view(node, node.usdc, TOKEN, "authorizationState", authorization.from, authorization.nonce);
        assert.equal(BigInt(used), 1n);
        await assert.rejects(call(node.usdc, data), /authorization is used or canceled/);
      }
    });

    await t.test("the CREATE2 deployer puts code where its salt and hash say", async () => {
      const { bytecode, deployedBytecode } = artifactOf("BatchSettler");
      const salt = `0x${"00".repeat(32)}`;
      const address = getContractAddress({ opcode: "CREATE2", from: node.create2Deployer, salt, bytecode });
      assert.equal(address, BATCH_SETTLER);
      assert.equal(await code(address), "0x");
      const receipt = await sendAndMine(node, node.wallet, node.create2Deployer, salt + bytecode.slice(2));
      assert.equal(receipt.status, "0x1");
      assert.equal(await code(address), deployedBytecode);
    });

    await t.test("the x402 proxies know Permit2", async () => {
      const abi = parseAbi(["function PERMIT2() view returns (address)"]);
      for (const proxy of [node.exactProxy, node.uptoProxy]) {
        assert.equal(BigInt(await view(node, proxy, abi, "PERMIT2")), BigInt(node.permit2));
      }
    });
  });
}

test("--slots-in-an-epoch and --gas-limit reach the chain", async (t) => {
  const node = await chain(t, "--slots-in-an-epoch", "2", "--gas-limit", "60000");
  await node.rpc("anvil_mine", 10);
  const number = async (tag) => Number((await node.rpc("eth_getBlockByNumber", tag, false)).number);
  const head = await number("latest");
  assert.equal(await number("safe"), head - 2);
  assert.equal(await number("finalized"), head - 4);
  assert.equal(Number((await node.rpc("eth_getBlockByNumber", "latest", false)).gasLimit), 60_000);
});

function payment(node, token) {
  const [{ privateKey }] = node.payers;
  const now = Math.floor(Date.now() / 1000);
  return authorize({ chain: node, token, payerKey: privateKey, payTo: node.payee.address, amount: "12345", now });
}
