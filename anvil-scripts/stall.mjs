#!/usr/bin/env node
// Stops the local chain for a while.

import { setTimeout as sleep } from "node:timers/promises";
import { command, integer, required } from "./lib/command.mjs";
import { localNode } from "./lib/local-node.mjs";
import { inWords, MANUAL, miningMode, setMiningMode } from "./lib/mining.mjs";

const HELP = `Usage: node stall.mjs --seconds N [options]

Stops block production for N seconds, then resumes what was before: a block for each transaction, or one every so often.
Transactions are accepted meanwhile, and wait. An interrupt resumes at once.

  --seconds N     how long
  --rpc-url URL   the anvil (default: RPC_URL of the environment or of .dev/dev.env)
  --help          this text
`;

const OPTIONS = { seconds: { type: "string" }, "rpc-url": { type: "string" } };

await command({ name: "stall", help: HELP, options: OPTIONS }, async (options) => {
  const seconds = required(integer(options, "seconds", { min: 1, max: 86_400 }), "--seconds N is needed");
  const rpc = await localNode(options);
  const mode = await miningMode(rpc);
  if (mode.kind === "manual") throw new Error("this chain makes blocks only on request, so there is nothing to stop");
  if (mode.seconds === 0) throw new Error("this chain makes blocks faster than every second, which could not be resumed");
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => interrupt.abort());

  await setMiningMode(rpc, MANUAL);
  try {
    console.log(`stopped at block ${Number(await rpc("eth_blockNumber"))} for ${seconds} s`);
    await sleep(seconds * 1000, undefined, { signal: interrupt.signal }).catch(() => {});
  } finally {
    await setMiningMode(rpc, mode);
  }
  console.log(`resumed at block ${Number(await rpc("eth_blockNumber"))}: ${inWords(mode)}`);
});
