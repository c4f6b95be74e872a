// The accounts of the local chain, derived from a mnemonic that everyone may know.
// It is not anvil's own: on public chains those addresses carry EIP-7702 delegations, and a fork inherits them.

import { pbkdf2Sync } from "node:crypto";
import { HDKey, privateKeyToAddress } from "viem/accounts";

export const MNEMONIC = "never put real coin behind public test seed only local market token";
export const DERIVATION_PATH = "m/44'/60'/0'/0";

// Far apart, so that a list can grow without running into its neighbour.
const INDEX = { wallet: 0, payee: 1_000, pauper: 2_000, stranger: 3_000, payers: 10_000, issuer: 90_000, admin: 91_000 };
const N_PAYERS = 8;

/** Every account by its part: what start.mjs prints, and `issuer` and `admin` of the local USDC. */
export function accounts() {
  // BIP-39: the seed is PBKDF2 over the words.
  const seed = pbkdf2Sync(MNEMONIC, "mnemonic", 2048, 64, "sha512");
  const parent = HDKey.fromMasterSeed(seed).derive(DERIVATION_PATH);
  const at = (index) => {
    const privateKey = `0x${Buffer.from(parent.deriveChild(index).privateKey).toString("hex")}`;
    return { address: privateKeyToAddress(privateKey), privateKey };
  };
  return {
    wallet: at(INDEX.wallet),
    payers: Array.from({ length: N_PAYERS }, (_, n) => at(INDEX.payers + n)),
    pauper: at(INDEX.pauper),
    payee: at(INDEX.payee),
    stranger: at(INDEX.stranger),
    issuer: at(INDEX.issuer),
    admin: at(INDEX.admin),
  };
}
