// Stands between a seller and Quittance: passes everything on, except for one path that it answers itself.
// So a seller meets answers that Quittance gives rarely, in the words of openapi.yaml.

import { once } from "node:events";
import { createServer } from "node:http";

const HOP_BY_HOP = new Set(["host", "connection", "content-length", "transfer-encoding", "keep-alive"]);
const RETRY_AFTER_SECONDS = 2;
const TRANSACTION = `0x${"ab".repeat(32)}`;

export async function openStandIn({ quittance, network }) {
  let scripted;
  let nAnswered = 0;
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.destroy(error));
  });

  async function answer(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    if (scripted && request.url === scripted.path) {
      nAnswered += 1;
      const retryAfter = [429, 503].includes(scripted.status) ? { "Retry-After": String(RETRY_AFTER_SECONDS) } : {};
      response.writeHead(scripted.status, { "Content-Type": "application/json", ...retryAfter });
      response.end(JSON.stringify(body(scripted, network)));
      return;
    }
    const headers = Object.entries(request.headers).filter(([name]) => !HOP_BY_HOP.has(name));
    const passed = await fetch(quittance.url + request.url, {
      method: request.method,
      headers: Object.fromEntries(headers),
      body: chunks.length > 0 ? Buffer.concat(chunks) : undefined,
    });
    const text = await passed.text();
    response.writeHead(passed.status, { "Content-Type": passed.headers.get("Content-Type") ?? "application/json" });
    response.end(text);
  }

  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** From now on `path` is answered with that status and code; with nothing, all is passed on. */
    answerWith(next) {
      scripted = next;
      nAnswered = 0;
    },
    nAnswered: () => nAnswered,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function body({ path, code }, network) {
  const sentence = "a sentence about it";
  if (path === "/verify") return { isValid: false, invalidReason: code, invalidMessage: sentence };
  const transaction = code === "settlement_pending" || code === "duplicate_settlement" ? TRANSACTION : "";
  return { success: false, errorReason: code, errorMessage: sentence, transaction, network };
}
