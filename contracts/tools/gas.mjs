// Measures what a payment costs on the local chain: paid directly, through BatchSettler, and through Multicall3.
// Every item has a payer and a payee of its own. Keys, nonces and times never change, so the calldata and its gas do not.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { accounts } from "../../anvil-scripts/lib/accounts.mjs";
import { chainOf } from "../../anvil-scripts/lib/chains.mjs";
import { include } from "../../anvil-scripts/lib/mining.mjs";
import { authorize } from "../../anvil-scripts/lib/payment.mjs";
import { endpoint, hex } from "../../anvil-scripts/lib/rpc.mjs";
import { mint } from "../../anvil-scripts/lib/usdc.mjs";
import { ARTIFACTS, ROOT } from "./artifacts.mjs";

const LOCAL_CHAIN = join(ROOT, "../anvil-scripts");
// The local chain's own packages, so that there is one version of each.
const require = createRequire(join(LOCAL_CHAIN, "package.json"));
const { encodeFunctionData, getContractAddress, keccak256, parseAbi, parseSignature, toHex } = require("viem");
const { privateKeyToAddress } = require("viem/accounts");

export const TABLE = join(ROOT, "gas-table.json");

const DRIFT_MAX = 0.005;
// What a payment may cost in a batch of fifty whose payees already hold the token.
const BUDGET = { payees: "known", items: 50, gas: 57_000 };
const N_ITEMS = [1, 2, 5, 10, 20, 50, 100];
const N_ITEMS_MAX = Math.max(...N_ITEMS);
const SALT = toHex(0, { size: 32 });
// EIP-7825: what one transaction may use at most.
const TRANSACTION_GAS = 16_777_216;
const CAP = { known: 65_000n, new: 85_000n };
const FAR_FUTURE = 4_000_000_000;
const GIFT = 1_000_000n;
const AMOUNT = "12345";

const ABI = parseAbi([
  "function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)",
  "struct Call { address target; uint256 gasCap; bytes data; }",
  "function settle(Call[] calls)",
  "struct Call3 { address target; bool allowFailure; bytes callData; }",
  "function aggregate3(Call3[] calls)",
]);
const encode = (functionName, ...args) => encodeFunctionData({ abi: ABI, functionName, args });

/** Starts a chain, measures, ends it: gas per item, all in, by number of items; and what the settler itself adds. */
export async function measure() {
  const child = spawn(process.execPath, [join(LOCAL_CHAIN, "start.mjs"), "--no-mining"], {
    env: { ...process.env, BASE_RPC_URL: "" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  try {
    const [line] = await Promise.race([
      once(createInterface({ input: child.stdout }), "line"),
      ended.then(() => Promise.reject(new Error("the local chain did not start, is `npm ci` done in anvil-scripts?"))),
    ]);
    const { rpcUrl, chainId } = JSON.parse(line);
    return await table(endpoint(rpcUrl), chainOf(chainId));
  } finally {
    child.stdin.end();
    await ended;
  }
}

/** What is wrong with the measured figures, in sentences: other than the committed ones, or over the budget. */
export function complaints(measured) {
  const committed = figures(JSON.parse(readFileSync(TABLE, "utf8")));
  const found = figures(measured);
  const names = [...new Set([...Object.keys(committed), ...Object.keys(found)])];
  const drifted = names
    .filter((name) => !(Math.abs(found[name] - committed[name]) <= DRIFT_MAX * committed[name]))
    .map((name) => `${name} costs ${found[name]} gas, gas-table.json says ${committed[name]}`);
  const dearest = measured.rows.find(({ payees, items }) => payees === BUDGET.payees && items === BUDGET.items).settler;
  return dearest <= BUDGET.gas ? drifted : [...drifted, `an item of ${BUDGET.items} costs ${dearest} gas, over ${BUDGET.gas}`];
}

function figures({ rows, overhead }) {
  const cells = rows.flatMap(({ payees, items, ...ways }) =>
    Object.entries(ways).map(([way, gas]) => [`${way} with ${items} ${payees} payees`, gas]),
  );
  const own = Object.entries(overhead).map(([part, gas]) => [`the settler's own ${part}`, gas]);
  return Object.fromEntries([...cells, ...own]);
}

async function table(rpc, chain) {
  const { wallet, issuer } = accounts();
  await rpc("anvil_impersonateAccount", wallet.address);
  const receiptOf = async (to, data) => {
    const hash = await rpc("eth_sendTransaction", { from: wallet.address, to, data, gas: hex(TRANSACTION_GAS) });
    await include(rpc, [hash]);
    const receipt = await rpc("eth_getTransactionReceipt", hash);
    if (receipt.status !== "0x1") throw new Error(`transaction ${hash} to ${to} reverted`);
    return receipt;
  };
  const settler = await deploy(chain, receiptOf);
  const payers = Array.from({ length: N_ITEMS_MAX }, (_, n) => toHex(10_000 + n, { size: 32 }));
  const regulars = Array.from({ length: N_ITEMS_MAX }, (_, n) => addressOf(`regular ${n}`));
  const everyone = [...payers.map(privateKeyToAddress), ...regulars];
  await mint(rpc, chain.usdc, issuer, everyone.map((to) => ({ to, amount: GIFT })), (hashes) => include(rpc, hashes));

  let nPayments = 0;
  const payments = (payees, n) =>
    Promise.all(payers.slice(0, n).map((key, at) => transfer(chain, key, nPayments++, payees === "known" && regulars[at])));
  const direct = async (payees) => ({ to: chain.usdc, data: (await payments(payees, 1))[0] });
  const settle = async (payees, n) => {
    const calls = (await payments(payees, n)).map((data) => ({ target: chain.usdc, gasCap: CAP[payees], data }));
    return { to: settler, data: encode("settle", calls) };
  };
  const aggregate3 = async (payees, n) => {
    const calls = (await payments(payees, n)).map((callData) => ({ target: chain.usdc, allowFailure: true, callData }));
    return { to: chain.multicall3, data: encode("aggregate3", calls) };
  };
  // Each payment must have been made: two logs of the token, and none of the settler.
  const gasPerItem = async ({ to, data }, n) => {
    const { gasUsed, logs } = await receiptOf(to, data);
    if (logs.length !== 2 * n) throw new Error(`${logs.length} logs from ${n} payments`);
    return Math.round(Number(gasUsed) / n);
  };

  const rows = [];
  for (const payees of ["known", "new"]) {
    for (const items of N_ITEMS) {
      rows.push({
        payees,
        items,
        direct: await gasPerItem(await direct(payees), 1),
        settler: await gasPerItem(await settle(payees, items), items),
        multicall3: await gasPerItem(await aggregate3(payees, items), items),
      });
    }
  }
  return { rows, overhead: await overhead({ rpc, receiptOf, settle }) };
}

// What the settler's own instructions cost: all that the transaction used, less what it costs before it runs
// and less what the calls used themselves.
async function overhead({ rpc, receiptOf, settle }) {
  const own = async (n) => {
    const { to, data } = await settle("known", n);
    const { transactionHash, gasUsed } = await receiptOf(to, data);
    const { calls = [] } = await rpc("debug_traceTransaction", transactionHash, { tracer: "callTracer" });
    if (calls.length !== n) throw new Error(`${calls.length} calls from ${n} payments`);
    return calls.reduce((left, call) => left - Number(call.gasUsed), Number(gasUsed) - intrinsic(data));
  };
  const [none, one, all] = [await own(0), await own(1), await own(N_ITEMS_MAX)];
  const item = Math.round((all - one) / (N_ITEMS_MAX - 1));
  return { fixed: none, firstItem: one - none, item };
}

// EIP-2028: what a transaction costs before it runs.
function intrinsic(data) {
  const bytes = Buffer.from(data.slice(2), "hex");
  return bytes.reduce((sum, byte) => sum + (byte === 0 ? 4 : 16), 21_000);
}

async function deploy(chain, receiptOf) {
  const { bytecode } = JSON.parse(readFileSync(join(ARTIFACTS, "BatchSettler.json"), "utf8"));
  await receiptOf(chain.create2Deployer, SALT + bytecode.slice(2));
  return getContractAddress({ opcode: "CREATE2", from: chain.create2Deployer, salt: SALT, bytecode });
}

// The calldata of one payment. Whoever is not a regular payee never had any of the token.
async function transfer(chain, payerKey, serial, regular) {
  const token = { name: chain.usdcName, version: chain.usdcVersion, address: chain.usdc };
  const payTo = regular || addressOf(`newcomer ${serial}`);
  const nonce = keccak256(toHex(serial));
  const paid = await authorize({ chain, token, payerKey, payTo, amount: AMOUNT, now: FAR_FUTURE, nonce });
  const { from, to, value, validAfter, validBefore } = paid.authorization;
  const { r, s, v } = parseSignature(paid.signature);
  const numbers = [value, validAfter, validBefore].map(BigInt);
  return encode("transferWithAuthorization", from, to, ...numbers, nonce, Number(v), r, s);
}

function addressOf(name) {
  return `0x${keccak256(toHex(name)).slice(-40)}`;
}
