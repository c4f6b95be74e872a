// How every script here reads its arguments, fails and ends: one sentence on stderr, status 0, 1 or 64.

import { parseArgs } from "node:util";

const FAILURE = 1;
const USAGE = 64;

/** The arguments are wrong; the caller can correct them. */
export class UsageError extends Error {}

/** Parses the arguments by node's own rules, prints the help when asked for, and runs `main(options)`. */
export async function command({ name, help, options }, main) {
  try {
    const given = parse(options);
    if (given.help) process.stdout.write(help);
    else await main(given);
  } catch (error) {
    process.stderr.write(`${name}: ${error.message}\n`);
    process.exitCode = error instanceof UsageError ? USAGE : FAILURE;
  }
}

function parse(options) {
  try {
    return parseArgs({ options: { ...options, help: { type: "boolean", short: "h" } }, strict: true }).values;
  } catch (error) {
    throw new UsageError(`${error.message.split(/\.\s/)[0]} (--help tells more)`);
  }
}

/** A whole number within limits, or `undefined` when the option was not given. */
export function integer(options, name, { min = 0, max = Number.MAX_SAFE_INTEGER } = {}) {
  const text = options[name];
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= min && value <= max)) {
    throw new UsageError(`--${name} must be a whole number from ${min} to ${max}, not "${text}"`);
  }
  return value;
}

/** Text that matches a pattern, or `undefined` when the option was not given. */
export function matching(options, name, pattern, what) {
  const text = options[name];
  if (text !== undefined && !pattern.test(text)) throw new UsageError(`--${name} must be ${what}, not "${text}"`);
  return text;
}

/** What must be there: an option, or the environment's word for it. */
export function required(value, sentence) {
  if (value === undefined || value === "") throw new UsageError(sentence);
  return value;
}

export const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
export const PRIVATE_KEY = /^0x[0-9a-fA-F]{64}$/;
export const HTTP_URL = /^https?:\/\/\S+$/;
