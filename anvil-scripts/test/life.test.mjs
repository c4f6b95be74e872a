// How the chain ends, and that nothing of it stays.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { alive, chain, script, until } from "./support.mjs";

const gone = (node) => until(`anvil ${node.pid} is gone`, () => !alive(node.pid));

test("the end of standard input ends both processes", async (t) => {
  const node = await chain(t);
  node.child.stdin.end();
  assert.deepEqual(await node.ended, { code: 0, signal: null });
  await gone(node);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  test(`${signal} ends both processes`, async (t) => {
    const node = await chain(t);
    node.child.kill(signal);
    assert.deepEqual(await node.ended, { code: 0, signal: null });
    await gone(node);
  });
}

const setpriv = spawnSync("setpriv", ["--pdeathsig", "KILL", "--", "true"]).status === 0;
test("SIGKILL ends both processes", { skip: setpriv ? false : "needs setpriv" }, async (t) => {
  const node = await chain(t);
  node.child.kill("SIGKILL");
  assert.equal((await node.ended).signal, "SIGKILL");
  await gone(node);
});

test("without anvil there is nothing to keep running", async (t) => {
  const node = await chain(t);
  let err = "";
  node.child.stderr.on("data", (data) => (err += data));
  process.kill(node.pid, "SIGKILL");
  assert.deepEqual(await node.ended, { code: 1, signal: null });
  assert.match(err, /^start: anvil ended by itself \(SIGKILL\)\n$/);
});

test("a port that is taken is refused, and its owner left alone", async (t) => {
  const node = await chain(t);
  const { port } = new URL(node.rpcUrl);
  const { status, out, err } = await script("start.mjs", ["--port", port]);
  assert.deepEqual({ status, out, err }, { status: 1, out: "", err: `start: port ${port} is taken\n` });
  assert.equal(Number(await node.rpc("eth_blockNumber")), node.blockNumber);
});

test("chains started at once get ports of their own", async (t) => {
  const nodes = await Promise.all([chain(t), chain(t), chain(t)]);
  assert.equal(new Set(nodes.map(({ rpcUrl }) => rpcUrl)).size, 3);
});

test("every script has help, and bad arguments are status 64", async () => {
  for (const name of ["start.mjs", "fund.mjs", "pay.mjs", "reorg.mjs", "stall.mjs"]) {
    const help = await script(name, ["--help"]);
    assert.equal(help.status, 0);
    assert.match(help.out, /^Usage: node /);
    const bad = await script(name, ["--nonsense"]);
    assert.equal(bad.status, 64, name);
    assert.match(bad.err, /^\w+: Unknown option '--nonsense' .*\n$/);
  }
  const cases = [
    ["start.mjs", ["--port", "0"]],
    ["start.mjs", ["--port", "65536"]],
    ["start.mjs", ["--chain-id", "1"]],
    ["start.mjs", ["--block-time", "0"]],
    ["start.mjs", ["--block-time", "1", "--no-mining"]],
    ["start.mjs", ["--fork-url", "localhost"]],
    ["fund.mjs", ["--rpc-url", "http://127.0.0.1:1"]],
    ["fund.mjs", ["--rpc-url", "http://127.0.0.1:1", "--to", "0x12"]],
    ["pay.mjs", ["--verify", "--settle"]],
    ["pay.mjs", ["--x402-version", "3"]],
    ["reorg.mjs", ["--depth", "0", "--rpc-url", "http://127.0.0.1:1"]],
    ["stall.mjs", ["--rpc-url", "http://127.0.0.1:1"]],
  ];
  for (const [name, args] of cases) {
    const { status, err } = await script(name, args);
    assert.equal(status, 64, `${name} ${args.join(" ")}: ${err}`);
    assert.match(err, /^\w+: [^\n]+\n$/);
  }
});
