// Makes a fresh anvil look like Base, and gives the accounts what they need. On a fork only what is missing is added.

import { canonicalCode } from "./code.mjs";
import { hex } from "./rpc.mjs";
import { balanceOf, installUsdc, mint, USDC_DECIMALS } from "./usdc.mjs";

const WALLET_WEI = 100n * 10n ** 18n;
const PAYER_BASE_UNITS = 1_000_000n * 10n ** BigInt(USDC_DECIMALS);
// Two epochs of anvil's default: a reorg of this depth leaves the seeding alone, and "finalized" is past it.
const N_QUIET_BLOCKS = 64;
const DOMAIN_SEPARATOR = "0x3644e515";

/** Seeds the node behind `rpc`. `include(hashes)` gets sent transactions mined; `say` tells the progress. */
export async function seed(rpc, chain, people, { include, say }) {
  for (const { address, code } of await canonicalCode(chain)) {
    if (await hasCode(rpc, address)) continue;
    say(`code at ${address}`);
    await rpc("anvil_setCode", address, code);
  }
  if (!(await hasCode(rpc, chain.usdc))) {
    say(`USDC at ${chain.usdc}`);
    await installUsdc(rpc, chain, people, include);
  }
  await expectDomain(rpc, "USDC", chain.usdc, chain.usdcDomain);
  await expectDomain(rpc, "Permit2", chain.permit2, chain.permit2Domain);
  await clearAccounts(rpc, people, say);
  say("funding the accounts");
  for (const { address } of [people.wallet, people.stranger]) await rpc("anvil_setBalance", address, hex(WALLET_WEI));
  await fillPayers(rpc, chain, people, include);
  await rpc("anvil_mine", N_QUIET_BLOCKS);
}

// The mnemonic is public: on a public chain someone may have delegated one of its addresses to code (EIP-7702).
async function clearAccounts(rpc, { payers, ...others }, say) {
  const all = [...payers, ...Object.values(others)].map(({ address }) => address);
  const delegated = await Promise.all(all.map((address) => hasCode(rpc, address)));
  for (const address of all.filter((_, n) => delegated[n])) {
    say(`removing the code of ${address}`);
    await rpc("anvil_setCode", address, "0x");
  }
}

async function fillPayers(rpc, chain, { payers, issuer }, include) {
  const balances = await Promise.all(payers.map(({ address }) => balanceOf(rpc, chain.usdc, address)));
  const gifts = payers
    .map(({ address }, n) => ({ to: address, amount: PAYER_BASE_UNITS - balances[n] }))
    .filter(({ amount }) => amount > 0n);
  if (gifts.length > 0) await mint(rpc, chain.usdc, issuer, gifts, include);
}

async function expectDomain(rpc, what, address, expected) {
  const found = await rpc("eth_call", { to: address, data: DOMAIN_SEPARATOR }, "latest");
  if (found !== expected) throw new Error(`${what} at ${address} has domain separator ${found}, expected ${expected}`);
}

async function hasCode(rpc, address) {
  return (await rpc("eth_getCode", address, "latest")) !== "0x";
}
