// JSON-RPC over HTTP, as little of it as the scripts need.

const TIMEOUT_MS = 30_000;

/** The endpoint answered with an error; `code` is JSON-RPC's. */
export class RpcError extends Error {
  constructor(method, { code, message }) {
    super(`${method}: ${message}`);
    this.code = code;
  }
}

/** An endpoint as a function: `await rpc("eth_getCode", address, "latest")`. */
export function endpoint(url, { timeout_ms = TIMEOUT_MS, stop } = {}) {
  return async function rpc(method, ...params) {
    const expiry = AbortSignal.timeout(timeout_ms);
    const answer = await post(url, method, params, stop ? AbortSignal.any([expiry, stop]) : expiry);
    if (answer.error) throw new RpcError(method, answer.error);
    return answer.result;
  };
}

// Endpoints carry API keys in their path, so only the host is ever named.
async function post(url, method, params, signal) {
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
      signal,
    });
  } catch (error) {
    throw new Error(`${method}: cannot reach ${new URL(url).host} (${reason(error)})`);
  }
  try {
    return await response.json();
  } catch {
    throw new Error(`${method}: ${new URL(url).host} answered ${response.status} without JSON`);
  }
}

/** Why a fetch failed, in a word or two; fetch itself says only that it did. */
export const reason = (error) => error.cause?.code ?? error.cause?.message ?? error.name;

/** A quantity as JSON-RPC writes it. */
export const hex = (quantity) => `0x${quantity.toString(16)}`;

/** The receipts of mined transactions; each must exist and have succeeded. */
export async function succeeded(rpc, what, hashes) {
  for (const hash of hashes) {
    const receipt = await rpc("eth_getTransactionReceipt", hash);
    if (receipt === null) throw new Error(`${what}: transaction ${hash} is not mined`);
    if (receipt.status !== "0x1") throw new Error(`${what}: transaction ${hash} reverted`);
  }
}
