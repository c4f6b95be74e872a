// What the tests share: a running chain, scripts run to their end, and payments made by hand.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { encodeFunctionData, keccak256, parseAbi, toHex } from "viem/utils";
import { privateKeyToAccount } from "viem/accounts";
import { endpoint } from "../lib/rpc.mjs";
import { chainOf } from "../lib/chains.mjs";

const FOLDER = join(import.meta.dirname, "..");
const WAIT_MS = 20_000;

// A developer's own settings must not reach the scripts under test.
function environment() {
  const { BASE_RPC_URL, RPC_URL, CHAIN_ID, USDC_ADDRESS, QUITTANCE_URL, QUITTANCE_API_KEY, ...rest } = process.env;
  return rest;
}

/** Starts the chain: what start.mjs printed, its `rpc`, its process and how that ended. `t` ends it. */
export async function chain(t, ...args) {
  const child = spawn(process.execPath, [join(FOLDER, "start.mjs"), ...args], { env: environment() });
  const ended = once(child, "exit").then(([code, signal]) => ({ code, signal }));
  const complaint = collect(child.stderr);
  t.after(() => (child.stdin.end(), ended));
  const line = await Promise.race([
    once(createInterface({ input: child.stdout }), "line"),
    ended.then(({ code }) => Promise.reject(new Error(`start.mjs ended with ${code}: ${complaint()}`))),
  ]);
  const ready = JSON.parse(line);
  return { ...ready, line: line[0], rpc: endpoint(ready.rpcUrl), child, ended, ...chainOf(ready.chainId) };
}

/** Runs a script to its end: `{status, out, err}`. */
export async function script(name, args, { env = {}, cwd } = {}) {
  const options = { env: { ...environment(), ...env }, cwd, stdio: ["ignore", "pipe", "pipe"] };
  const child = spawn(process.execPath, [join(FOLDER, name), ...args], options);
  const [out, err] = [collect(child.stdout), collect(child.stderr)];
  const [status] = await once(child, "close");
  return { status, out: out(), err: err() };
}

function collect(stream) {
  let text = "";
  stream.setEncoding("utf8").on("data", (data) => (text += data));
  return () => text;
}

/** Waits until `probe` gives something true, and returns it. */
export async function until(what, probe) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS} ms in vain: ${what}`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
}

/** Whether a process of this id runs. One that has ended but waits for an heir to notice does not. */
export function alive(pid) {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const status = `/proc/${pid}/status`;
  return !existsSync(status) || !/^State:\s+[ZX]/m.test(readFileSync(status, "utf8"));
}

export const TOKEN = parseAbi([
  "function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature)",
  "function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)",
  "function balanceOf(address account) view returns (uint256)",
  "function authorizationState(address authorizer, bytes32 nonce) view returns (bool)",
  "function approve(address spender, uint256 amount) returns (bool)",
  "function nonces(address owner) view returns (uint256)",
]);

export const TOPIC = {
  authorizationUsed: keccak256(toHex("AuthorizationUsed(address,bytes32)")),
  transfer: keccak256(toHex("Transfer(address,address,uint256)")),
  settled: keccak256(toHex("Settled()")),
  settledWithPermit: keccak256(toHex("SettledWithPermit()")),
};

/** Calls a view, gives the raw word. */
export function view(node, to, abi, functionName, ...args) {
  return node.rpc("eth_call", { to, data: encodeFunctionData({ abi, functionName, args }) }, "latest");
}

/** An account's USDC in base units. */
export async function usdcOf(node, address) {
  return BigInt(await view(node, node.usdc, TOKEN, "balanceOf", address));
}

/** Signs a transaction with the account's own key and sends it: its hash. */
export async function send(node, { privateKey }, to, data) {
  const account = privateKeyToAccount(privateKey);
  const raw = await account.signTransaction({
    type: "eip1559",
    chainId: node.chainId,
    nonce: Number(await node.rpc("eth_getTransactionCount", account.address, "pending")),
    to,
    data,
    gas: 500_000n,
    maxFeePerGas: 2_000_000_000n,
    maxPriorityFeePerGas: 1_000_000n,
  });
  return await node.rpc("eth_sendRawTransaction", raw);
}

/** The same, on a chain that mines at once: its receipt. */
export async function sendAndMine(node, from, to, data) {
  const hash = await send(node, from, to, data);
  return await until(`receipt of ${hash}`, () => node.rpc("eth_getTransactionReceipt", hash));
}
