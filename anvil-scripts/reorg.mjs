#!/usr/bin/env node
// Replaces the newest blocks of the local chain by empty ones.

import { command, integer, required } from "./lib/command.mjs";
import { localNode } from "./lib/local-node.mjs";

const HELP = `Usage: node reorg.mjs --depth N [options]

Replaces the newest N blocks by empty blocks of the same heights.
Their transactions are gone: unlike on a real chain, anvil does not put them back into its pool.

  --depth N       how many blocks
  --rpc-url URL   the anvil (default: RPC_URL of the environment or of .dev/dev.env)
  --help          this text
`;

const OPTIONS = { depth: { type: "string" }, "rpc-url": { type: "string" } };

await command({ name: "reorg", help: HELP, options: OPTIONS }, async (options) => {
  const depth = required(integer(options, "depth", { min: 1 }), "--depth N is needed");
  const rpc = await localNode(options);
  const before = await rpc("eth_getBlockByNumber", "latest", false);
  const head = Number(before.number);
  if (depth > head) throw new Error(`the chain has only ${head} blocks above its first one`);
  const first = `0x${(head - depth + 1).toString(16)}`;
  const replaced = await rpc("eth_getBlockByNumber", first, false);
  await rpc("anvil_reorg", depth, []);
  const replacement = await rpc("eth_getBlockByNumber", first, false);
  console.log(`replaced blocks ${head - depth + 1} to ${head}; block ${head - depth + 1} was ${replaced.hash} and is ${replacement.hash}`);
});
