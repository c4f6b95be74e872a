// Fails unless the committed artifacts are what src/ compiles to, and the Solidity tests pass.

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ARTIFACTS, compile, forge } from "./tools/artifacts.mjs";

try {
  const compiled = compile();
  const committed = existsSync(ARTIFACTS) ? readdirSync(ARTIFACTS) : [];
  const files = [...new Set([...compiled.keys(), ...committed])];
  const wrong = files.filter(
    (file) => !committed.includes(file) || readFileSync(join(ARTIFACTS, file), "utf8") !== compiled.get(file),
  );
  if (wrong.length > 0) throw new Error(`artifacts differ from src/, run \`npm run build\`: ${wrong.join(", ")}`);
  if (!forge("test")) throw new Error("forge test failed");
  console.log(`${files.length} artifacts reproduced`);
} catch (error) {
  console.error(`check: ${error.message}`);
  process.exitCode = 1;
}
