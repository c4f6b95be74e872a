// The two chains, as each protocol version names them, and the domain that USDC signs under there.

export const BASE = {
  chainId: 8453,
  v1: "base",
  v2: "eip155:8453",
  domain: { name: "USD Coin", version: "2" },
};

export const BASE_SEPOLIA = {
  chainId: 84532,
  v1: "base-sepolia",
  v2: "eip155:84532",
  domain: { name: "USDC", version: "2" },
};
