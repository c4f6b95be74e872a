// When anvil makes blocks: at once for each transaction, every so many seconds, or only when told.

const POLL_MS = 20;
const INCLUSION_TIMEOUT_MS = 60_000;

export const AUTOMINE = { kind: "automine" };
export const MANUAL = { kind: "manual" };
export const interval = (seconds) => ({ kind: "interval", seconds });

/** The mode of a running anvil. */
export async function miningMode(rpc) {
  if (await rpc("anvil_getAutomine")) return AUTOMINE;
  const seconds = await rpc("anvil_getIntervalMining");
  return seconds === null ? MANUAL : interval(seconds);
}

/** Puts a running anvil into a mode. */
export async function setMiningMode(rpc, mode) {
  switch (mode.kind) {
    case "automine":
      return await rpc("evm_setAutomine", true);
    case "interval":
      return await rpc("anvil_setIntervalMining", mode.seconds);
    case "manual":
      // evm_setAutomine(false) would leave an interval running.
      return await rpc("anvil_setIntervalMining", 0);
  }
}

/** The mode in words. */
export function inWords(mode) {
  switch (mode.kind) {
    case "automine":
      return "a block for each transaction";
    case "interval":
      return `a block every ${mode.seconds} s`;
    case "manual":
      return "blocks only on request";
  }
}

/** Waits until the transactions are mined, and mines them itself where nothing else would. */
export async function include(rpc, hashes) {
  if ((await miningMode(rpc)).kind === "manual") await rpc("evm_mine");
  const deadline = Date.now() + INCLUSION_TIMEOUT_MS;
  for (const hash of hashes) {
    while ((await rpc("eth_getTransactionReceipt", hash)) === null) {
      if (Date.now() > deadline) throw new Error(`transaction ${hash} was not mined within ${INCLUSION_TIMEOUT_MS} ms`);
      await new Promise((wake) => setTimeout(wake, POLL_MS));
    }
  }
}
