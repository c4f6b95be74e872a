// The anvil that fund, reorg and stall act on: named by --rpc-url, or by RPC_URL.

import { HTTP_URL, matching, required } from "./command.mjs";
import { defaults } from "./devenv.mjs";
import { endpoint } from "./rpc.mjs";

/** The endpoint, after making sure that it is an anvil: these scripts do what no public chain allows. */
export async function localNode(options) {
  const url = matching(options, "rpc-url", HTTP_URL, "an http or https URL") ?? defaults().RPC_URL;
  const rpc = endpoint(required(url, "which chain? give --rpc-url, or RPC_URL in the environment or .dev/dev.env"));
  const version = await rpc("web3_clientVersion");
  if (!version.startsWith("anvil/")) throw new Error(`${new URL(url).host} is ${version}, not an anvil`);
  return rpc;
}
