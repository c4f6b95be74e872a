// Rewrites gas-table.json with what is measured now.

import { writeFileSync } from "node:fs";
import { measure, TABLE } from "./tools/gas.mjs";

try {
  const measured = await measure();
  writeFileSync(TABLE, `${JSON.stringify(measured, null, 2)}\n`);
  console.table(measured.rows);
  console.log(measured.overhead);
} catch (error) {
  console.error(`gas: ${error.message}`);
  process.exitCode = 1;
}
