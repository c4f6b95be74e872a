// The contracts that a Base-like chain has besides its token: their code, from pinned packages and from contracts/.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(import.meta.url);

// Arachnid's deterministic deployment proxy: the first word of what it is sent is the salt, the rest creation code.
// Anvil has it by itself; a chain that is forked may not.
const CREATE2_DEPLOYER =
  "0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";

/** Address and runtime code of Multicall3, Permit2, the CREATE2 deployer and the two x402 proxies. */
export async function canonicalCode(chain) {
  return [
    { address: chain.multicall3, code: await multicall3() },
    { address: chain.permit2, code: permit2() },
    { address: chain.create2Deployer, code: CREATE2_DEPLOYER },
    { address: chain.exactProxy, code: artifactOf("X402ExactPermit2Proxy").deployedBytecode },
    { address: chain.uptoProxy, code: artifactOf("X402UptoPermit2Proxy").deployedBytecode },
  ];
}

// Permit2 cannot be compiled to its canonical code with solc-js; its authors' test helper has it as a literal.
function permit2() {
  const folder = dirname(resolve("@uniswap/v4-periphery/package.json"));
  const source = readFileSync(join(folder, "lib/permit2/test/utils/DeployPermit2.sol"), "utf8");
  return `0x${source.match(/hex"([0-9a-f]+)"/)[1]}`;
}

// viem has creation code: 32 bytes of it return the rest. The file is not among viem's exports.
async function multicall3() {
  const viem = dirname(resolve("viem/package.json"));
  const { multicall3Bytecode } = await import(pathToFileURL(join(viem, "_esm/constants/contracts.js")));
  return `0x${multicall3Bytecode.slice(2 + 2 * 0x20)}`;
}

/** What contracts/ has compiled: `{abi, bytecode, deployedBytecode}`. */
export function artifactOf(name) {
  const file = join(import.meta.dirname, "../../contracts/artifacts", `${name}.json`);
  return JSON.parse(readFileSync(file, "utf8"));
}
