// Defaults that a running `quittance dev` leaves behind in .dev/dev.env.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const FILE = ".dev/dev.env";

/** The environment over the file: of the current folder, or else of the repository these scripts are in. */
export function defaults() {
  for (const folder of [process.cwd(), join(import.meta.dirname, "../..")]) {
    const found = read(join(folder, FILE));
    if (found) return { ...found, ...process.env };
  }
  return process.env;
}

function read(file) {
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw new Error(`cannot read ${file} (${error.code})`);
  }
  const pairs = text.split("\n").map((line) => line.match(/^\s*(?:export\s+)?([A-Z_][A-Z0-9_]*)=(.*?)\s*$/));
  return Object.fromEntries(pairs.filter(Boolean).map(([, key, value]) => [key, value.replace(/^(["'])(.*)\1$/, "$2")]));
}
