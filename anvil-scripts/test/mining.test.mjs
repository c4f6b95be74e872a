// When blocks come, and what reorg.mjs and stall.mjs do to them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chain, script, send, sendAndMine, until, usdcOf } from "./support.mjs";

const height = async (node) => Number(await node.rpc("eth_blockNumber"));
const receipt = (node, hash) => node.rpc("eth_getTransactionReceipt", hash);
const transfer = (node) => send(node, node.wallet, node.payee.address, "0x");

test("by default each transaction gets a block", async (t) => {
  const node = await chain(t);
  assert.equal(await node.rpc("anvil_getAutomine"), true);
  const { blockNumber } = await sendAndMine(node, node.wallet, node.payee.address, "0x");
  assert.equal(Number(blockNumber), node.blockNumber + 1);
});

test("--block-time gives blocks by the clock, and stall.mjs stops and resumes them", async (t) => {
  const node = await chain(t, "--block-time", "1");
  assert.equal(await node.rpc("anvil_getAutomine"), false);
  assert.equal(await node.rpc("anvil_getIntervalMining"), 1);
  const hash = await transfer(node);
  assert.ok(await until("a block by the clock", () => receipt(node, hash)));

  const stalled = script("stall.mjs", ["--seconds", "2", "--rpc-url", node.rpcUrl]);
  await until("the stall", async () => (await node.rpc("anvil_getIntervalMining")) === null);
  const before = await height(node);
  const waiting = await transfer(node);
  const { status, out } = await stalled;
  assert.equal(status, 0);
  assert.match(out, /^stopped at block \d+ for 2 s\nresumed at block \d+: a block every 1 s\n$/);
  assert.equal(await node.rpc("anvil_getIntervalMining"), 1);
  const mined = await until("the waiting transaction", () => receipt(node, waiting));
  assert.equal(Number(mined.blockNumber), before + 1);
});

test("--no-mining gives blocks only on request", async (t) => {
  const node = await chain(t, "--no-mining");
  assert.equal(await node.rpc("anvil_getAutomine"), false);
  assert.equal(await node.rpc("anvil_getIntervalMining"), null);
  const hash = await transfer(node);
  assert.equal(await receipt(node, hash), null);
  await node.rpc("evm_mine");
  assert.equal((await receipt(node, hash)).status, "0x1");

  const { status, err } = await script("stall.mjs", ["--seconds", "1", "--rpc-url", node.rpcUrl]);
  assert.equal(status, 1);
  assert.match(err, /only on request/);
});

test("stall.mjs resumes mining at once, too", async (t) => {
  const node = await chain(t);
  const stalled = script("stall.mjs", ["--seconds", "1", "--rpc-url", node.rpcUrl]);
  await until("the stall", async () => !(await node.rpc("anvil_getAutomine")));
  const hash = await transfer(node);
  assert.equal(await receipt(node, hash), null);
  assert.equal((await stalled).status, 0);
  assert.equal(await node.rpc("anvil_getAutomine"), true);
  assert.ok(await until("the waiting transaction", () => receipt(node, hash)));
});

test("reorg.mjs replaces the newest blocks and drops their transactions", async (t) => {
  const node = await chain(t);
  const kept = await sendAndMine(node, node.wallet, node.payee.address, "0x");
  const lost = await sendAndMine(node, node.wallet, node.payee.address, "0x");
  await node.rpc("anvil_mine", 2);
  const before = await height(node);

  const { status, out } = await script("reorg.mjs", ["--depth", "3", "--rpc-url", node.rpcUrl]);
  assert.equal(status, 0, out);
  assert.equal(await height(node), before);
  assert.equal(await receipt(node, lost.transactionHash), null);
  assert.equal((await receipt(node, kept.transactionHash)).blockHash, kept.blockHash);
  const replacement = await node.rpc("eth_getBlockByNumber", lost.blockNumber, false);
  assert.notEqual(replacement.hash, lost.blockHash);

  // What start.mjs prepared is out of reach of the deepest reorg that a test is likely to want.
  const deepest = await script("reorg.mjs", ["--depth", String(before - node.blockNumber + 60), "--rpc-url", node.rpcUrl]);
  assert.equal(deepest.status, 0);
  assert.equal(await usdcOf(node, node.payers[7].address), 1_000_000_000_000n);
  assert.equal(BigInt(await node.rpc("eth_getBalance", node.wallet.address, "latest")), 100n * 10n ** 18n);

  const deep = await script("reorg.mjs", ["--depth", String(before + 1), "--rpc-url", node.rpcUrl]);
  assert.equal(deep.status, 1);
  assert.match(deep.err, /^reorg: the chain has only \d+ blocks above its first one\n$/);
});
