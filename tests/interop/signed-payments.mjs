// Payments signed by hand, for what no SDK would send and for plain HTTP.

import { randomBytes } from "node:crypto";

import { privateKeyToAccount } from "viem/accounts";

const TYPES = {
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
};

/** Signs a transfer with a fresh authorization nonce, valid until `validBefore` (Unix seconds). */
export async function signTransfer({ account, network, usdc, payee, amount, validBefore }) {
  const authorization = {
    from: account.address,
    to: payee,
    value: amount.toString(),
    validAfter: "0",
    validBefore: validBefore.toString(),
    nonce: `0x${randomBytes(32).toString("hex")}`,
  };
  const signature = await privateKeyToAccount(account.privateKey).signTypedData({
    domain: { ...network.domain, chainId: network.chainId, verifyingContract: usdc },
    types: TYPES,
    primaryType: "TransferWithAuthorization",
    message: authorization,
  });
  return { signature, authorization };
}

/** The time, moved by `seconds`, in Unix seconds. */
export function secondsFromNow(seconds) {
  return Math.floor(Date.now() / 1000) + seconds;
}
