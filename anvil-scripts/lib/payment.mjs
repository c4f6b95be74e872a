// A buyer's payment by EIP-3009: what is asked, what is signed, and the request that carries both to a facilitator.

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
const MAX_TIMEOUT_SECONDS = 300;
const RESOURCE = "http://localhost/paid";

/** The merchant's requirements, in the words of x402 version 1 or 2. */
export function requirements({ version, chain, token, payTo, amount }) {
  const extra = { name: token.name, version: token.version };
  const both = { scheme: "exact", payTo, asset: token.address, maxTimeoutSeconds: MAX_TIMEOUT_SECONDS, extra };
  if (version === 2) return { ...both, network: `eip155:${chain.chainId}`, amount };
  const about = { resource: RESOURCE, description: "", mimeType: "application/json" };
  return { ...both, ...about, network: chain.v1Network, maxAmountRequired: amount };
}

/** An authorization, valid from always until `MAX_TIMEOUT_SECONDS` after `now`, and its signature. */
export async function authorize({ chain, token, payerKey, payTo, amount, now, nonce = freshNonce() }) {
  const payer = privateKeyToAccount(payerKey);
  const authorization = {
    from: payer.address,
    to: payTo,
    value: amount,
    validAfter: "0",
    validBefore: String(now + MAX_TIMEOUT_SECONDS),
    nonce,
  };
  const { name, version, address } = token;
  const signature = await payer.signTypedData({
    domain: { name, version, chainId: chain.chainId, verifyingContract: address },
    types: TYPES,
    primaryType: "TransferWithAuthorization",
    message: authorization,
  });
  return { signature, authorization };
}

function freshNonce() {
  return `0x${randomBytes(32).toString("hex")}`;
}

/** The body of POST /verify and POST /settle. */
export function request({ version, paymentRequirements, payload }) {
  const { scheme, network } = paymentRequirements;
  const terms = version === 2 ? { accepted: paymentRequirements, resource: { url: RESOURCE } } : { scheme, network };
  return { x402Version: version, paymentPayload: { x402Version: version, payload, ...terms }, paymentRequirements };
}
