// Measures what a payment costs on the local chain: paid directly, through BatchSettler, and through Multicall3.
// Payers, nonces and times are always the same, so the calldata and therefore the gas is, too.

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
const { encodeFunctionData, getContractAddress, keccak256, parseAbi, parseSignature, toHex } = createRequire(
  join(LOCAL_CHAIN, "package.json"),
)("viem");
const { privateKeyToAddress } = createRequire(join(LOCAL_CHAIN, "package.json"))("viem/accounts");

export const N_ITEMS = [1, 2, 5, 10, 20, 50, 100];
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

/** Starts a chain, measures, ends it: rows of gas per item, and what the settler itself adds. */
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
  const settler = await deploy(rpc, chain, receiptOf);
  const payers = Array.from({ length: N_ITEMS_MAX }, (_, n) => toHex(10_000 + n, { size: 32 }));
  const regulars = Array.from({ length: N_ITEMS_MAX }, (_, n) => addressOf(`regular ${n}`));
  const everyone = [...payers.map(privateKeyToAddress), ...regulars];
  await mint(rpc, chain.usdc, issuer, everyone.map((to) => ({ to, amount: GIFT })), (hashes) => include(rpc, hashes));

  let nPayments = 0;
  const payments = (payees, n) =>
    Promise.all(
      payers.slice(0, n).map((payerKey, at) => {
        const payTo = payees === "known" ? regulars[at] : addressOf(`newcomer ${nPayments}`);
        const nonce = keccak256(toHex(nPayments++));
        const token = { name: chain.usdcName, version: chain.usdcVersion, address: chain.usdc };
        return authorize({ chain, token, payerKey, payTo, amount: AMOUNT, now: FAR_FUTURE, nonce }).then(transfer);
      }),
    );
  // Each item must really have been paid: two logs of the token, and none of the settler.
  const perItem = async (to, data, n) => {
    const { gasUsed, logs } = await receiptOf(to, data);
    if (logs.length !== 2 * n) throw new Error(`${logs.length} logs from ${n} payments`);
    return Math.round(Number(gasUsed) / n);
  };

  const rows = [];
  for (const payees of ["known", "new"]) {
    const [single] = await payments(payees, 1);
    const direct = await perItem(chain.usdc, single, 1);
    for (const items of N_ITEMS) {
      const calls = (await payments(payees, items)).map((data) => ({ target: chain.usdc, gasCap: CAP[payees], data }));
      const others = (await payments(payees, items)).map((callData) => ({ target: chain.usdc, allowFailure: true, callData }));
      rows.push({
        payees,
        items,
        direct,
        settler: await perItem(settler, encode("settle", calls), items),
        multicall3: await perItem(chain.multicall3, encode("aggregate3", others), items),
      });
    }
  }
  return { rows };
}

async function deploy(rpc, chain, receiptOf) {
  const { bytecode } = JSON.parse(readFileSync(join(ARTIFACTS, "BatchSettler.json"), "utf8"));
  await receiptOf(chain.create2Deployer, SALT + bytecode.slice(2));
  return getContractAddress({ opcode: "CREATE2", from: chain.create2Deployer, salt: SALT, bytecode });
}

function transfer({ authorization, signature }) {
  const { from, to, value, validAfter, validBefore, nonce } = authorization;
  const { r, s, v } = parseSignature(signature);
  const amounts = [value, validAfter, validBefore].map(BigInt);
  return encode("transferWithAuthorization", from, to, ...amounts, nonce, Number(v), r, s);
}

const addressOf = (name) => `0x${keccak256(toHex(name)).slice(-40)}`;
