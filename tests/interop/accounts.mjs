// The local chain's accounts: payers hold USDC and no ETH, the pauper holds neither.

import { randomBytes } from "node:crypto";

import { getAddress } from "viem";

import { accounts } from "../../anvil-scripts/lib/accounts.mjs";

export const { payers, pauper } = accounts();

/** A payee that no one ever paid, so that a test sees only its own payments. */
export function freshPayee() {
  return getAddress(`0x${randomBytes(20).toString("hex")}`);
}
