// Rewrites artifacts/ from src/.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ARTIFACTS, compile } from "./tools/artifacts.mjs";

try {
  const artifacts = compile();
  rmSync(ARTIFACTS, { recursive: true, force: true });
  mkdirSync(ARTIFACTS);
  for (const [file, text] of artifacts) writeFileSync(join(ARTIFACTS, file), text);
  console.log(`wrote ${[...artifacts.keys()].join(", ")}`);
} catch (error) {
  console.error(`build: ${error.message}`);
  process.exitCode = 1;
}
