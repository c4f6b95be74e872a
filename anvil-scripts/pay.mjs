#!/usr/bin/env node
// Makes one payment as a buyer and takes it to a facilitator.

import { decodeAbiParameters } from "viem/utils";
import { accounts } from "./lib/accounts.mjs";
import { chainBehind, CHAIN_IDS, chainOf } from "./lib/chains.mjs";
import { ADDRESS, command, HTTP_URL, matching, PRIVATE_KEY, required, UsageError } from "./lib/command.mjs";
import { defaults } from "./lib/devenv.mjs";
import { authorize, request, requirements } from "./lib/payment.mjs";
import { endpoint, reason } from "./lib/rpc.mjs";

const TIMEOUT_MS = 60_000;
const NAME = "0x06fdde03";
const VERSION = "0x54fd4d50";

const HELP = `Usage: node pay.mjs [options]

Signs one EIP-3009 payment and posts it to /verify, then to /settle. Prints both answers.
The exit status is 0 if the payment is valid and settled.

  --verify | --settle    only the one of the two
  --amount N             in base units, a millionth of a USDC (default: 10000)
  --pay-to ADDRESS       who is paid (default: the payee of start.mjs)
  --payer-key KEY        who pays (default: the first payer of start.mjs)
  --x402-version 1|2     version of the protocol (default: 2)
  --usdc ADDRESS         the token (default: USDC_ADDRESS, or that of the chain)
  --usdc-name NAME       its EIP-712 name (default: what the token says)
  --usdc-version TEXT    its EIP-712 version (default: what the token says)
  --quittance-url URL    the facilitator (default: QUITTANCE_URL)
  --api-key KEY          the merchant's key (default: QUITTANCE_API_KEY)
  --rpc-url URL          the chain (default: RPC_URL)
  --help                 this text

Names in capitals are read from the environment, or from .dev/dev.env. Where there is no RPC_URL, CHAIN_ID will do.
`;

const OPTIONS = {
  verify: { type: "boolean" },
  settle: { type: "boolean" },
  amount: { type: "string", default: "10000" },
  "pay-to": { type: "string" },
  "payer-key": { type: "string" },
  "x402-version": { type: "string", default: "2" },
  usdc: { type: "string" },
  "usdc-name": { type: "string" },
  "usdc-version": { type: "string" },
  "quittance-url": { type: "string" },
  "api-key": { type: "string" },
  "rpc-url": { type: "string" },
};

await command({ name: "pay", help: HELP, options: OPTIONS }, async (options) => {
  const fallback = defaults();
  if (options.verify && options.settle) throw new UsageError("--verify and --settle exclude each other; both is the default");
  const version = Number(matching(options, "x402-version", /^[12]$/, "1 or 2"));
  const amount = matching(options, "amount", /^\d{1,78}$/, "a whole number of base units");
  const payerKey = matching(options, "payer-key", PRIVATE_KEY, "a private key of 32 bytes") ?? accounts().payers[0].privateKey;
  const payTo = matching(options, "pay-to", ADDRESS, "an address") ?? accounts().payee.address;
  const url = matching(options, "quittance-url", HTTP_URL, "an http or https URL") ?? fallback.QUITTANCE_URL;
  const facilitator = required(url, "which facilitator? give --quittance-url, or QUITTANCE_URL in the environment or .dev/dev.env");
  const apiKey = options["api-key"] ?? fallback.QUITTANCE_API_KEY;

  const rpcUrl = matching(options, "rpc-url", HTTP_URL, "an http or https URL") ?? fallback.RPC_URL;
  const rpc = rpcUrl && endpoint(rpcUrl);
  const chain = await chainFor(rpc, fallback);
  const token = await tokenFor(rpc, chain, options, fallback);

  const paymentRequirements = requirements({ version, chain, token, payTo, amount });
  const payload = await authorize({ chain, token, payerKey, payTo, amount, now: await now(rpc) });
  const body = request({ version, paymentRequirements, payload });
  if (!options.settle) await ask(facilitator, "verify", apiKey, body, ({ isValid }) => isValid === true);
  if (!options.verify) await ask(facilitator, "settle", apiKey, body, ({ success }) => success === true);
});

async function chainFor(rpc, { CHAIN_ID }) {
  if (rpc) return await chainBehind(rpc);
  const chainId = required(CHAIN_ID, "which chain? give --rpc-url, or RPC_URL or CHAIN_ID in the environment or .dev/dev.env");
  const chain = chainOf(Number(chainId));
  if (!chain) throw new UsageError(`CHAIN_ID must be ${CHAIN_IDS.join(" or ")}, not "${chainId}"`);
  return chain;
}

async function tokenFor(rpc, chain, options, { USDC_ADDRESS }) {
  const address = matching(options, "usdc", ADDRESS, "an address") ?? USDC_ADDRESS ?? chain.usdc;
  const usual = address.toLowerCase() === chain.usdc.toLowerCase();
  const of = async (option, selector, ofUsdc) => {
    if (options[option] !== undefined) return options[option];
    if (usual) return ofUsdc;
    if (!rpc) throw new UsageError(`--${option} is needed for a token other than ${chain.usdc}`);
    return decodeAbiParameters([{ type: "string" }], await rpc("eth_call", { to: address, data: selector }, "latest"))[0];
  };
  return {
    address,
    name: await of("usdc-name", NAME, chain.usdcName),
    version: await of("usdc-version", VERSION, chain.usdcVersion),
  };
}

// A local chain's clock can be ahead of ours; what is signed must outlast both.
async function now(rpc) {
  const ours = Math.floor(Date.now() / 1000);
  if (!rpc) return ours;
  const { timestamp } = await rpc("eth_getBlockByNumber", "latest", false);
  return Math.max(ours, Number(timestamp));
}

async function ask(facilitator, path, apiKey, body, accepted) {
  const authorization = apiKey ? { authorization: `Bearer ${apiKey}` } : {};
  const url = `${facilitator.replace(/\/+$/, "")}/${path}`;
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", ...authorization },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new Error(`cannot reach ${url} (${reason(error)})`);
  }
  const text = await response.text();
  console.log(`POST /${path} ${response.status}`);
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`/${path} answered ${response.status} without JSON: ${text.slice(0, 200)}`);
  }
  console.log(JSON.stringify(answer, null, 2));
  if (!accepted(answer)) throw new Error(`/${path} said no: ${answer.invalidReason ?? answer.errorReason ?? response.status}`);
}
