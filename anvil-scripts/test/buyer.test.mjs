// fund.mjs and pay.mjs, the latter against a facilitator that only remembers what it was asked.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { encodeFunctionData } from "viem/utils";
import { chain, script, TOKEN, usdcOf } from "./support.mjs";

const SOMEONE = "0x00000000000000000000000000000000000A11cE";

test("fund.mjs gives USDC and ether, in every mode of mining", async (t) => {
  for (const mode of [[], ["--no-mining"], ["--block-time", "1"]]) {
    const node = await chain(t, ...mode);
    const args = ["--rpc-url", node.rpcUrl, "--to", SOMEONE];
    const first = await script("fund.mjs", [...args, "--usdc", "12.5", "--eth", "0.25"]);
    assert.deepEqual(first, { status: 0, out: `${SOMEONE} has 12.5 USDC and 0.25 ETH\n`, err: "" });
    const [a, b] = await Promise.all([script("fund.mjs", args), script("fund.mjs", [...args, "--eth", "0"])]);
    assert.deepEqual([a.status, b.status], [0, 0], a.err + b.err);
    assert.equal(await usdcOf(node, SOMEONE), 2_012_500_000n);
  }
});

test("fund.mjs touches nothing but an anvil", async (t) => {
  const url = await facilitator(t, () => ({ jsonrpc: "2.0", id: 1, result: "Geth/v1.16.0" }));
  const { status, err } = await script("fund.mjs", ["--rpc-url", url, "--to", SOMEONE]);
  assert.equal(status, 1);
  assert.match(err, /^fund: 127\.0\.0\.1:\d+ is Geth\/v1\.16\.0, not an anvil\n$/);
});

test("pay.mjs posts a payment that the chain would accept, in both versions", async (t) => {
  const node = await chain(t);
  const asked = [];
  const url = await facilitator(t, (request, body) => {
    asked.push({ path: request.url, authorization: request.headers.authorization, body });
    return request.url === "/verify" ? { isValid: true } : { success: true, transaction: "0x", network: "" };
  });
  const state = mkdtempSync(join(tmpdir(), "pay-"));
  t.after(() => rmSync(state, { recursive: true }));
  mkdirSync(join(state, ".dev"));
  const dev = `QUITTANCE_URL=${url}/\nQUITTANCE_API_KEY="qk_test_1"\nRPC_URL=${node.rpcUrl}\nCHAIN_ID=8453\nUSDC_ADDRESS=${node.usdc}\n`;
  writeFileSync(join(state, ".dev/dev.env"), dev);

  for (const version of [1, 2]) {
    asked.length = 0;
    const { status, out, err } = await script("pay.mjs", ["--x402-version", String(version)], { cwd: state });
    assert.equal(status, 0, err);
    assert.match(out, /^POST \/verify 200\n.*POST \/settle 200\n/s);
    assert.deepEqual(asked.map(({ path }) => path), ["/verify", "/settle"]);
    assert.equal(asked[0].authorization, "Bearer qk_test_1");
    assert.deepEqual(asked[0].body, asked[1].body);

    const { x402Version, paymentPayload, paymentRequirements } = asked[0].body;
    assert.equal(x402Version, version);
    assert.equal(paymentRequirements.network, version === 2 ? "eip155:8453" : "base");
    assert.equal(version === 2 ? paymentRequirements.amount : paymentRequirements.maxAmountRequired, "10000");
    if (version === 2) assert.deepEqual(paymentPayload.accepted, paymentRequirements);
    const { signature, authorization } = paymentPayload.payload;
    const args = [...Object.values(authorization), signature];
    const data = encodeFunctionData({ abi: TOKEN, functionName: "transferWithAuthorization", args });
    await node.rpc("eth_call", { from: node.wallet.address, to: node.usdc, data }, "latest");
  }
});

test("pay.mjs fails when the facilitator says no", async (t) => {
  const url = await facilitator(t, () => ({ isValid: false, invalidReason: "insufficient_funds" }));
  const args = ["--quittance-url", url, "--verify"];
  const { status, out, err } = await script("pay.mjs", args, { env: { CHAIN_ID: "8453" } });
  assert.equal(status, 1);
  assert.match(out, /"invalidReason": "insufficient_funds"/);
  assert.equal(err, "pay: /verify said no: insufficient_funds\n");
});

async function facilitator(t, answer) {
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const data of request) text += data;
    response.setHeader("content-type", "application/json").end(JSON.stringify(answer(request, JSON.parse(text))));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${server.address().port}`;
}
