// Fails unless the committed artifacts are what src/ compiles to, the Solidity tests pass, and a payment costs
// what gas-table.json says.

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ARTIFACTS, compile, forge } from "./tools/artifacts.mjs";
import { complaints, measure } from "./tools/gas.mjs";

try {
  const compiled = compile();
  const committed = existsSync(ARTIFACTS) ? readdirSync(ARTIFACTS) : [];
  const files = [...new Set([...compiled.keys(), ...committed])];
  const wrong = files.filter(
    (file) => !committed.includes(file) || readFileSync(join(ARTIFACTS, file), "utf8") !== compiled.get(file),
  );
  if (wrong.length > 0) throw new Error(`artifacts differ from src/, run \`npm run build\`: ${wrong.join(", ")}`);
  if (!forge("test")) throw new Error("forge test failed");
  const changed = complaints(await measure());
  if (changed.length > 0) throw new Error(`the gas changed, see \`npm run gas\`:\n  ${changed.join("\n  ")}`);
  console.log(`${files.length} artifacts reproduced, gas as in gas-table.json`);
} catch (error) {
  console.error(`check: ${error.message}`);
  process.exitCode = 1;
}
