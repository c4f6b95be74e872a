#!/usr/bin/env node
// The part of solc's command line that forge uses, on top of solc-js.
// forge asks for the version, then sends one standard JSON input; all sources are inside it.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const USAGE = 64;
const args = process.argv.slice(2);

// solc-js installs handlers that rethrow whatever goes wrong anywhere in the process.
const compiler = createRequire(import.meta.url)("solc");
process.removeAllListeners("uncaughtException");
process.removeAllListeners("unhandledRejection");

if (args.includes("--version")) {
  // forge parses the platform suffix and refuses solc-js's own, "Emscripten.clang".
  const version = compiler.version().replace(/\.Emscripten\.clang$/, ".Linux.g++");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (args.includes("--standard-json")) {
  process.stdout.write(compiler.compile(readFileSync(0, "utf8")));
} else {
  process.stderr.write("solc.mjs: only --version and --standard-json are offered\n");
  process.exitCode = USAGE;
}
