// Prints tests/vectors/spending_policy.json: what owners sign, hashed and signed by viem, which knows
// nothing of our code. Keys and nonces are fixed, so that it prints the same every time.
//
//   node spending-policy-vectors.mjs > ../vectors/spending_policy.json

import { concat, encodeAbiParameters, hashTypedData, maxUint256 } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const owner = privateKeyToAccount(`0x${"11".repeat(32)}`);
const sessionKey = privateKeyToAccount(`0x${"22".repeat(32)}`);
const account = `0x${"a1".repeat(20)}`;
const asset = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
const payees = [`0x${"b1".repeat(20)}`, `0x${"b2".repeat(20)}`];
const chainId = 8453;
const domain = { name: "Quittance", version: "1", chainId };

const fields = (names) =>
  names.split(", ").map((field) => {
    const [type, name] = field.split(" ");
    return { name, type };
  });
const types = {
  SpendingPolicy: fields(
    "address account, address asset, uint256 nonce, address owner, uint256 perPayment, uint256 perDay, " +
      "uint256 total, address[] payees, uint256 validAfter, uint256 validBefore, Session[] sessions",
  ),
  Session: fields(
    "address key, uint256 perPayment, uint256 perDay, uint256 total, address[] payees, uint256 validAfter, " +
      "uint256 validBefore",
  ),
  SpendingPolicyRevocation: fields("address account, address asset, uint256 nonce"),
  SpendingPolicyRelease: fields("address account, address asset, uint256 nonce"),
  ReadSpendingPolicy: fields("address account, address asset, uint256 issuedAt"),
};

const limits = {
  perPayment: maxUint256,
  perDay: maxUint256,
  total: maxUint256,
  payees: [],
  validAfter: 0n,
  validBefore: maxUint256,
};
const session = {
  key: sessionKey.address,
  perPayment: 10_000n,
  perDay: 50_000n,
  total: 100_000n,
  payees,
  validAfter: 1_780_000_000n,
  validBefore: 1_780_086_400n,
};
const policy = { account, asset, nonce: 1n, owner: owner.address, ...limits, sessions: [] };
const zero = `0x${"00".repeat(20)}`;

const messages = [
  ["no limits, no sessions", "policy", "SpendingPolicy", policy],
  [
    "limits and payees",
    "policy",
    "SpendingPolicy",
    { ...policy, nonce: maxUint256, owner: zero, perPayment: 0n, perDay: 5n, total: 6n, payees },
  ],
  ["one session", "policy", "SpendingPolicy", { ...policy, sessions: [session] }],
  [
    "three sessions",
    "policy",
    "SpendingPolicy",
    {
      ...policy,
      payees: payees.slice(1),
      sessions: [session, { ...limits, key: zero }, { ...session, payees: [], perDay: maxUint256 }],
    },
  ],
  ["a revocation", "revocation", "SpendingPolicyRevocation", { account, asset, nonce: 2n }],
  ["a release", "release", "SpendingPolicyRelease", { account, asset, nonce: 2n }],
];

const plain = (value) =>
  JSON.parse(JSON.stringify(value, (_, item) => (typeof item === "bigint" ? item.toString() : item)));

const documents = [];
for (const [name, key, primaryType, message] of messages) {
  const typed = { domain, types, primaryType, message };
  documents.push({
    name,
    body: {
      network: `eip155:${chainId}`,
      [key]: plain(message),
      signature: await owner.signTypedData(typed),
    },
    digest: hashTypedData(typed),
  });
}

const question = { account, asset, issuedAt: 1_780_000_000n };
const asked = { domain, types, primaryType: "ReadSpendingPolicy", message: question };

// What a key of a Coinbase Smart Wallet signs for a payment's digest, as viem's `toCoinbaseSmartAccount` has it.
const digest = `0x${"d1".repeat(32)}`;
const replaySafe = {
  domain: { name: "Coinbase Smart Wallet", version: "1", chainId, verifyingContract: account },
  types: { CoinbaseSmartWalletMessage: [{ name: "hash", type: "bytes32" }] },
  primaryType: "CoinbaseSmartWalletMessage",
  message: { hash: digest },
};
const signature = await sessionKey.signTypedData(replaySafe);
const pair = encodeAbiParameters(
  [
    {
      type: "tuple",
      components: [
        { name: "ownerIndex", type: "uint8" },
        { name: "signatureData", type: "bytes" },
      ],
    },
  ],
  [{ ownerIndex: 0, signatureData: signature }],
);

const vectors = {
  owner: owner.address,
  types,
  documents,
  question: {
    body: {
      network: `eip155:${chainId}`,
      ...plain(question),
      signature: await owner.signTypedData(asked),
    },
    digest: hashTypedData(asked),
  },
  coinbase: {
    wallet: account,
    chainId,
    digest,
    replaySafe: hashTypedData(replaySafe),
    key: sessionKey.address,
    signature: pair,
    prefixed: concat([account, await sessionKey.sign({ hash: digest })]),
  },
};
process.stdout.write(`${JSON.stringify(vectors, null, 2)}\n`);
