// Reads docs/merchants.md as a merchant does: files to copy, commands to type, and what they print.

import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const REPOSITORY = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** A block that is a file says its name in its first line: `// seller.mjs`, `# seller.py`. */
const FILE_NAME = /^(?:\/\/|#) ([\w./]+\.\w+)$/;
const FENCE = /^```(\w*)$/;

/**
 * `files` by their names, `commands` in order with what the text block behind each says that they print,
 * and the rows of the tables below each heading.
 */
export function readGuide() {
  const lines = readFileSync(resolve(REPOSITORY, "docs/merchants.md"), "utf8").split("\n");
  const guide = { files: new Map(), commands: [], tables: new Map() };
  let heading = "";
  for (let at = 0; at < lines.length; at += 1) {
    if (/^#+ /.test(lines[at])) heading = lines[at].replace(/^#+ /, "");
    if (lines[at].startsWith("|")) {
      const cells = lines[at].split("|").slice(1, -1).map((cell) => cell.trim());
      guide.tables.set(heading, [...(guide.tables.get(heading) ?? []), cells]);
    }
    const fence = FENCE.exec(lines[at]);
    if (!fence) continue;
    const end = lines.indexOf("```", at + 1);
    if (end === -1) throw new Error(`docs/merchants.md:${at + 1}: this block does not end`);
    addBlock(guide, { heading, language: fence[1], lines: lines.slice(at + 1, end), line: at + 1 });
    at = end;
  }
  return guide;
}

function addBlock(guide, { heading, language, lines, line }) {
  const text = `${lines.join("\n")}\n`;
  const name = FILE_NAME.exec(lines[0] ?? "")?.[1];
  if (name) {
    guide.files.set(name, text);
  } else if (language === "sh") {
    guide.commands.push({ heading, text, line, printed: undefined });
  } else if (language === "text" && guide.commands.length > 0) {
    guide.commands.at(-1).printed = text;
  } else {
    throw new Error(`docs/merchants.md:${line}: a block is a file, commands, or what the commands before it print`);
  }
}

/** What differs from run to run, made equal: hashes, addresses, keys, ids, times. */
export function masked(text) {
  return text
    .replaceAll(/qk_(test|live)_[0-9a-f]+…?/g, "qk_$1_…")
    .replaceAll(/0x[0-9a-f]{64}/gi, "0x(hash)")
    .replaceAll(/0x[0-9a-f]{40}\b/gi, "0x(address)")
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "(id)")
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "(time)")
    .trimEnd();
}
