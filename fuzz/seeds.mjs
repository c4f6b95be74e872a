#!/usr/bin/env node
// Writes the seeds: the requests of the reference vectors, and their signatures.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const { vectors } = JSON.parse(readFileSync(new URL("../tests/vectors/vectors.json", import.meta.url)));
const folder = (name) => {
  const url = new URL(`seeds/${name}/`, import.meta.url);
  mkdirSync(url, { recursive: true });
  return url;
};
const [requests, signatures] = [folder("parse_request"), folder("signature")];
for (const { id, request } of vectors) {
  writeFileSync(new URL(`${id}.json`, requests), JSON.stringify(request));
  const { signature } = request.paymentPayload.payload ?? {};
  if (!/^0x([0-9a-f]{2})*$/i.test(signature)) continue;
  // The first byte says that the others are a signature as they are.
  writeFileSync(new URL(id, signatures), Buffer.from(`00${signature.slice(2)}`, "hex"));
}
// The good signature, its twin, and the good one in a wrapper.
for (const [name, hex] of [["good", "02"], ["twin", "03"], ["wrapped", `04${"0b".repeat(20)}00010203`]]) {
  writeFileSync(new URL(name, signatures), Buffer.from(hex, "hex"));
}
