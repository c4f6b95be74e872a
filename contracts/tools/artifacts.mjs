// Compiles src/ afresh and gives the text of every artifact that belongs in artifacts/.

import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";

export const ROOT = join(import.meta.dirname, "..");
export const ARTIFACTS = join(ROOT, "artifacts");

/** Runs forge from node_modules, or the one named in FORGE_BIN; its output goes to ours. True if it succeeded. */
export function forge(...args) {
  const program = process.env.FORGE_BIN ?? join(ROOT, "node_modules/.bin/forge");
  const run = spawnSync(program, args, { cwd: ROOT, stdio: "inherit" });
  if (run.error) throw new Error(`forge cannot be run, is \`npm ci\` done? (${run.error.code})`);
  return run.status === 0;
}

/** Map of file name to text, for each contract of src/ that has code of its own. */
export function compile() {
  if (!forge("build", "--force")) throw new Error("forge build failed");
  const sources = readdirSync(join(ROOT, "src"), { recursive: true }).filter((path) => path.endsWith(".sol"));
  const artifacts = new Map();
  for (const source of sources.sort()) {
    const folder = join(ROOT, "out", basename(source));
    for (const file of readdirSync(folder).sort()) {
      const { abi, bytecode, deployedBytecode } = JSON.parse(readFileSync(join(folder, file), "utf8"));
      if (deployedBytecode.object === "0x") continue;
      const artifact = { abi, bytecode: bytecode.object, deployedBytecode: deployedBytecode.object };
      artifacts.set(file, `${JSON.stringify(artifact, null, 2)}\n`);
    }
  }
  return artifacts;
}
