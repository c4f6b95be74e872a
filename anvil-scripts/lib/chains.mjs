// The chains that can be imitated or forked, and what is at which address on them.

const PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
const MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11";
const CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C";
const EXACT_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001";
const UPTO_PROXY = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";
const EVERYWHERE = {
  permit2: PERMIT2,
  multicall3: MULTICALL3,
  create2Deployer: CREATE2_DEPLOYER,
  exactProxy: EXACT_PROXY,
  uptoProxy: UPTO_PROXY,
};

// The domain separators follow from name, version, chain id and address; payers sign over them.
const CHAINS = [
  {
    ...EVERYWHERE,
    chainId: 8453,
    v1Network: "base",
    usdc: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
    usdcName: "USD Coin",
    usdcVersion: "2",
    usdcDomain: "0x02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f",
    permit2Domain: "0x3b6f35e4fce979ef8eac3bcdc8c3fc38fe7911bb0c69c8fe72bf1fd1a17e6f07",
  },
  {
    ...EVERYWHERE,
    chainId: 84532,
    v1Network: "base-sepolia",
    usdc: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    usdcName: "USDC",
    usdcVersion: "2",
    usdcDomain: "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
    permit2Domain: "0x010f27a92fb9a32622f44f001dc4d15706a85b33499cfc2ce9033113ab26592c",
  },
];

export const CHAIN_IDS = CHAINS.map(({ chainId }) => chainId);
export const DEFAULT_CHAIN_ID = 8453;

/** The chain with this id, or `undefined`. */
export const chainOf = (chainId) => CHAINS.find((chain) => chain.chainId === chainId);

/** The chain behind an endpoint; a chain that is not Base is refused. */
export async function chainBehind(rpc) {
  const chainId = Number(await rpc("eth_chainId"));
  const chain = chainOf(chainId);
  if (!chain) throw new Error(`the chain has id ${chainId}, but only ${CHAIN_IDS.join(" and ")} are known`);
  return chain;
}
