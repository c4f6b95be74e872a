// The fork path, on a second local chain in the place of Base.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { encodeFunctionData, parseAbi } from "viem/utils";
import { accounts } from "../lib/accounts.mjs";
import { authorize } from "../lib/payment.mjs";
import { chain, script, sendAndMine, TOKEN, usdcOf, view } from "./support.mjs";

test("a fork pays in its own world and leaves its parent alone", async (t) => {
  const parent = await chain(t, "--chain-id", "84532");
  const delegated = parent.payers[3].address;
  await parent.rpc("anvil_setCode", delegated, "0xef01000000000000000000000000000000000000000001");
  await parent.rpc("anvil_setBalance", parent.wallet.address, "0x1");
  await parent.rpc("evm_mine");
  const height = await parent.rpc("eth_blockNumber");

  const fork = await chain(t, "--fork-url", parent.rpcUrl);
  assert.equal(fork.chainId, 84532);
  assert.equal(fork.forked, true);
  assert.ok(fork.blockNumber >= parent.blockNumber);
  assert.equal(await fork.rpc("eth_getCode", delegated, "latest"), "0x");
  assert.equal(BigInt(await fork.rpc("eth_getBalance", fork.wallet.address, "latest")), 100n * 10n ** 18n);
  for (const { address } of fork.payers) assert.equal(await usdcOf(fork, address), 1_000_000_000_000n);

  const token = { name: fork.usdcName, version: fork.usdcVersion, address: fork.usdc };
  const now = Math.floor(Date.now() / 1000);
  const payTo = fork.payee.address;
  const payerKey = fork.payers[0].privateKey;
  const { signature, authorization } = await authorize({ chain: fork, token, payerKey, payTo, amount: "777", now });
  const args = [...Object.values(authorization), signature];
  const data = encodeFunctionData({ abi: TOKEN, functionName: "transferWithAuthorization", args });
  assert.equal((await sendAndMine(fork, fork.wallet, fork.usdc, data)).status, "0x1");

  assert.equal(await usdcOf(fork, payTo), 777n);
  assert.equal(await usdcOf(parent, payTo), 0n);
  assert.equal(await parent.rpc("eth_blockNumber"), height);
});

test("a fork mints through the token's own master minter, who may be a contract", async (t) => {
  const parent = await chain(t);
  const { issuer } = accounts();
  const [payer] = parent.payers;
  const masterMinter = "0x2230393EDAD0299b7E7B59F20AA856cD1bEd52e1";
  const abi = parseAbi([
    "function removeMinter(address minter)",
    "function updateMasterMinter(address masterMinter)",
    "function transfer(address to, uint256 amount)",
    "function masterMinter() view returns (address)",
  ]);
  const call = (functionName, ...args) => encodeFunctionData({ abi, functionName, args });
  for (const { address } of [issuer, payer]) await parent.rpc("anvil_setBalance", address, "0xde0b6b3a7640000");
  await parent.rpc("anvil_setCode", masterMinter, "0x60006000fd");
  for (const [from, data] of [
    [issuer, call("removeMinter", issuer.address)],
    [issuer, call("updateMasterMinter", masterMinter)],
    [payer, call("transfer", parent.payee.address, 5_000_000n)],
  ]) {
    assert.equal((await sendAndMine(parent, from, parent.usdc, data)).status, "0x1");
  }

  const fork = await chain(t, "--fork-url", parent.rpcUrl, "--block-time", "1");
  assert.equal(BigInt(await view(fork, fork.usdc, abi, "masterMinter")), BigInt(masterMinter));
  assert.equal(await usdcOf(fork, payer.address), 1_000_000_000_000n);
  assert.equal(await usdcOf(parent, payer.address), 999_995_000_000n);
  assert.equal(await fork.rpc("anvil_getIntervalMining"), 1);
  const { status, err } = await script("fund.mjs", ["--rpc-url", fork.rpcUrl, "--to", fork.pauper.address]);
  assert.equal(status, 0, err);
  assert.equal(await usdcOf(fork, fork.pauper.address), 1_000_000_000n);
});

test("a fork gets the CREATE2 deployer that its parent lacks", async (t) => {
  const parent = await chain(t);
  const code = await parent.rpc("eth_getCode", parent.create2Deployer, "latest");
  await parent.rpc("anvil_setCode", parent.create2Deployer, "0x");
  await parent.rpc("evm_mine");

  const fork = await chain(t, "--fork-url", parent.rpcUrl);
  assert.equal(await fork.rpc("eth_getCode", fork.create2Deployer, "latest"), code);
  assert.equal(await parent.rpc("eth_getCode", parent.create2Deployer, "latest"), "0x");
});

test("a fork refuses another chain id than its parent's", async (t) => {
  const parent = await chain(t);
  const { status, out, err } = await script("start.mjs", ["--fork-url", parent.rpcUrl, "--chain-id", "84532"]);
  assert.equal(status, 64);
  assert.equal(out, "");
  assert.match(err, /^start: --chain-id 84532 was asked for, but the chain to fork has id 8453\n$/);
});

test("BASE_RPC_URL is forked without being asked, and a dead one is one sentence without its path", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const host = `127.0.0.1:${server.address().port}`;
  await new Promise((closed) => server.close(closed));
  const { status, err } = await script("start.mjs", [], { env: { BASE_RPC_URL: `http://${host}/secret` } });
  assert.deepEqual({ status, err }, { status: 1, err: `start: eth_chainId: cannot reach ${host} (ECONNREFUSED)\n` });
});
