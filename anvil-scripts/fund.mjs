#!/usr/bin/env node
// Gives an account USDC and ether on the local chain.

import { formatEther, formatUnits, parseEther, parseUnits } from "viem/utils";
import { accounts } from "./lib/accounts.mjs";
import { chainBehind } from "./lib/chains.mjs";
import { ADDRESS, command, matching, required } from "./lib/command.mjs";
import { localNode } from "./lib/local-node.mjs";
import { include } from "./lib/mining.mjs";
import { hex } from "./lib/rpc.mjs";
import { balanceOf, mint, USDC_DECIMALS } from "./lib/usdc.mjs";

const HELP = `Usage: node fund.mjs --to ADDRESS [options]

Mints USDC to an account of the local chain and adds ether to it.
Where blocks come only on request, one block is mined.

  --to ADDRESS    whom to fund
  --usdc AMOUNT   in USDC (default: 1000; 0 for none)
  --eth AMOUNT    in ether (default: 1; 0 for none)
  --rpc-url URL   the anvil (default: RPC_URL of the environment or of .dev/dev.env)
  --help          this text
`;

const OPTIONS = {
  to: { type: "string" },
  usdc: { type: "string", default: "1000" },
  eth: { type: "string", default: "1" },
  "rpc-url": { type: "string" },
};

await command({ name: "fund", help: HELP, options: OPTIONS }, async (options) => {
  const to = required(matching(options, "to", ADDRESS, "an address"), "--to ADDRESS is needed");
  const usdc = parseUnits(matching(options, "usdc", /^\d{1,12}(\.\d{1,6})?$/, "an amount like 12.5"), USDC_DECIMALS);
  const wei = parseEther(matching(options, "eth", /^\d{1,12}(\.\d{1,18})?$/, "an amount like 0.5"));
  const rpc = await localNode(options);
  const chain = await chainBehind(rpc);

  const before = BigInt(await rpc("eth_getBalance", to, "latest"));
  if (wei > 0n) await rpc("anvil_setBalance", to, hex(before + wei));
  if (usdc > 0n) {
    await mint(rpc, chain.usdc, accounts().issuer, [{ to, amount: usdc }], (hashes) => include(rpc, hashes));
  }
  const has = await balanceOf(rpc, chain.usdc, to);
  console.log(`${to} has ${formatUnits(has, USDC_DECIMALS)} USDC and ${formatEther(before + wei)} ETH`);
});
