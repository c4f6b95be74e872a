// Tells when whoever started us is gone: standard input reaches its end.

import { fstatSync } from "node:fs";

/**
 * Calls `gone` when standard input ends. Only a pipe, a socket or a file is a lifeline: a terminal says what it has
 * to say by signals, and /dev/null, which shells give to background jobs, ends at once and means nothing.
 */
export function holdLifeline(gone) {
  const stdin = fstatSync(0);
  if (!stdin.isFIFO() && !stdin.isSocket() && !stdin.isFile()) return;
  process.stdin.on("end", gone).on("error", gone).resume();
}
