#!/usr/bin/env node
// Starts the local chain: anvil, seeded to look like Base, or forked from it.

import { command, HTTP_URL, integer, matching, UsageError } from "./lib/command.mjs";
import { accounts } from "./lib/accounts.mjs";
import { startAnvil } from "./lib/anvil.mjs";
import { chainBehind, CHAIN_IDS, chainOf, DEFAULT_CHAIN_ID } from "./lib/chains.mjs";
import { holdLifeline } from "./lib/lifeline.mjs";
import { AUTOMINE, inWords, include, interval, MANUAL, setMiningMode } from "./lib/mining.mjs";
import { endpoint, hex } from "./lib/rpc.mjs";
import { seed } from "./lib/seed.mjs";

// Base's own block gas limit and floor of the base fee, roughly.
const GAS_LIMIT = 400_000_000;
const BASE_FEE_WEI = 5_000_000;
const UPSTREAM_TIMEOUT_MS = 10_000;
// A terminal's Ctrl-C reaches anvil too, and its end may be seen here before the signal is.
const SIGNAL_GRACE_MS = 100;

const HELP = `Usage: node start.mjs [options]

Starts anvil as a Base-like chain with USDC, Permit2, Multicall3 and the x402 proxies, and funded accounts.
When it is ready, one line of JSON on standard output says what is where.
It runs until SIGINT, SIGTERM, or the end of its standard input (a pipe held by whoever started it).

  --port N               listen on this port of 127.0.0.1 (default: a free one)
  --chain-id N           ${CHAIN_IDS.join(" or ")} (default: ${DEFAULT_CHAIN_ID}; a fork has the id of what it forks)
  --block-time SECONDS   a block every so often (default: a block for each transaction)
  --no-mining            blocks only on request (evm_mine)
  --fork-url URL         fork this chain (default: BASE_RPC_URL, if set)
  --slots-in-an-epoch N  distance of the blocks "safe" (N) and "finalized" (2 N) from the head
  --gas-limit N          gas of a block (default: ${GAS_LIMIT}; a fork has that of what it forks)
  --verbose              tell the progress on standard error
  --help                 this text
`;

const OPTIONS = {
  port: { type: "string" },
  "chain-id": { type: "string" },
  "block-time": { type: "string" },
  "no-mining": { type: "boolean" },
  "fork-url": { type: "string" },
  "slots-in-an-epoch": { type: "string" },
  "gas-limit": { type: "string" },
  verbose: { type: "boolean" },
};

await command({ name: "start", help: HELP, options: OPTIONS }, async (options) => {
  const plan = planOf(options);
  const stop = stopSignal();
  try {
    await run(plan, stop, options.verbose ? (text) => process.stderr.write(`start: ${text}\n`) : () => {});
  } catch (error) {
    if (!stop.aborted) throw error;
  }
});
// Standard input may still be open.
process.exit();

async function run(plan, stop, say) {
  const chain = await chainFor(plan, stop);
  say(plan.forkUrl ? `forking chain ${chain.chainId} from ${new URL(plan.forkUrl).host}` : `chain ${chain.chainId}`);
  const anvil = await startAnvil({ port: plan.port, args: anvilArguments(plan, chain), stop });
  try {
    const ended = anvil.exited.then((how) => Promise.reject(new Error(`anvil ended by itself (${how})`)));
    const ready = await Promise.race([prepare(anvil, chain, plan, say), ended]);
    process.stdout.write(`${JSON.stringify(ready)}\n`);
    say(`ready at ${anvil.rpcUrl}, ${inWords(plan.mining)}`);
    await ended.finally(() => stop.aborted || new Promise((wake) => setTimeout(wake, SIGNAL_GRACE_MS)));
  } finally {
    await anvil.end();
  }
}

function planOf(options) {
  if (options["block-time"] !== undefined && options["no-mining"]) {
    throw new UsageError("--block-time and --no-mining exclude each other");
  }
  const seconds = integer(options, "block-time", { min: 1, max: 86_400 });
  const chainId = integer(options, "chain-id");
  if (chainId !== undefined && !chainOf(chainId)) {
    throw new UsageError(`--chain-id must be ${CHAIN_IDS.join(" or ")}, not ${chainId}`);
  }
  const fromEnvironment = { "fork-url": process.env.BASE_RPC_URL || undefined };
  if (options["fork-url"] === undefined && fromEnvironment["fork-url"] && !HTTP_URL.test(fromEnvironment["fork-url"])) {
    throw new UsageError("BASE_RPC_URL must be an http or https URL");
  }
  return {
    port: integer(options, "port", { min: 1, max: 65_535 }) ?? 0,
    chainId,
    mining: seconds !== undefined ? interval(seconds) : options["no-mining"] ? MANUAL : AUTOMINE,
    forkUrl: matching({ ...fromEnvironment, ...options }, "fork-url", HTTP_URL, "an http or https URL"),
    slotsInAnEpoch: integer(options, "slots-in-an-epoch", { min: 1, max: 1_000_000 }),
    gasLimit: integer(options, "gas-limit", { min: 21_000 }),
  };
}

async function chainFor({ forkUrl, chainId }, stop) {
  if (!forkUrl) return chainOf(chainId ?? DEFAULT_CHAIN_ID);
  const chain = await chainBehind(endpoint(forkUrl, { timeout_ms: UPSTREAM_TIMEOUT_MS, stop }));
  if (chainId !== undefined && chainId !== chain.chainId) {
    throw new UsageError(`--chain-id ${chainId} was asked for, but the chain to fork has id ${chain.chainId}`);
  }
  return chain;
}

// No accounts of anvil's own: their keys are known to everyone and a fork would fund them.
// Mining is off while the chain is prepared, so that each step takes no time.
function anvilArguments({ forkUrl, slotsInAnEpoch }, chain) {
  const fresh = ["--chain-id", chain.chainId, "--gas-limit", GAS_LIMIT, "--block-base-fee-per-gas", BASE_FEE_WEI];
  const fork = ["--fork-url", forkUrl, "--no-storage-caching"];
  const slots = ["--slots-in-an-epoch", slotsInAnEpoch];
  const words = ["--network", "optimism", "--accounts", 0, "--no-mining"];
  return [...words, ...(forkUrl ? fork : fresh), ...(slotsInAnEpoch ? slots : [])].map(String);
}

async function prepare({ rpc, rpcUrl, wsUrl, pid }, chain, { forkUrl, gasLimit, mining }, say) {
  const { issuer, admin, ...people } = accounts();
  await seed(rpc, chain, { ...people, issuer, admin }, { include: (hashes) => include(rpc, hashes), say });
  // Only now: a small limit would spread the preparation over many blocks.
  if (gasLimit !== undefined) await rpc("anvil_setBlockGasLimit", hex(gasLimit));
  if (mining !== MANUAL) await setMiningMode(rpc, mining);
  const { chainId, usdc, usdcName, usdcVersion } = chain;
  const blockNumber = Number(await rpc("eth_blockNumber"));
  const forked = forkUrl !== undefined;
  return { rpcUrl, wsUrl, chainId, pid, blockNumber, usdc, usdcName, usdcVersion, forked, ...people };
}

function stopSignal() {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => stop.abort());
  process.stdout.on("error", () => stop.abort());
  holdLifeline(() => stop.abort());
  return stop.signal;
}
