// Waiting on a condition, with an end.

import { setTimeout as delay } from "node:timers/promises";

const INTERVAL_MS = 50;

/** Asks until the answer is not `undefined`, and fails after `timeoutMs`. */
export async function poll(ask, { waitingFor, timeoutMs }) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() >= deadline) throw new Error(`waited ${timeoutMs} ms for ${waitingFor}`);
    await delay(INTERVAL_MS);
  }
}
