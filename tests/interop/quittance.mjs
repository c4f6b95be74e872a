// Starts `quittance dev` with a fresh state folder, tells the tests where it is, and ends it.
// The tests know no more of it than a merchant would: what `dev.env` says.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { poll } from "./poll.mjs";

const REPOSITORY = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const BINARY = resolve(REPOSITORY, process.env.QUITTANCE_BIN ?? "target/debug/quittance");
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 30_000;
const RUN_MARK = "QUITTANCE_INTEROP_RUN";

/** Starts `quittance dev` and returns once it says that it is ready. */
export async function startQuittance({ chainId }) {
  assert.ok(existsSync(BINARY), `${BINARY} is missing: build it with \`cargo build\`, or set QUITTANCE_BIN`);
  const folder = await mkdtemp(join(tmpdir(), "quittance-interop-"));
  // Run by root, Postgres works as another user, who must be able to reach its own folder in here.
  await chmod(folder, 0o711);
  const stateDir = join(folder, "state");
  const logFile = join(folder, "quittance.log");
  const run = { mark: `${RUN_MARK}=${randomUUID()}`, folder };

  const child = spawnDev({ chainId, stateDir, logFile, run });
  let outcome;
  const exited = new Promise((done) => {
    child.once("exit", (code, signal) => done((outcome = { code, signal })));
    child.once("error", (error) => done((outcome = { code: null, signal: error.message })));
  });
  const endAtExit = () => child.kill("SIGINT");
  process.once("exit", endAtExit);

  const abandon = async (reason) => {
    const log = readLog(logFile);
    await end({ child, exited, run });
    process.off("exit", endAtExit);
    await rm(folder, { recursive: true, force: true });
    throw new Error(`quittance dev ${reason}; its output was:\n${log}`);
  };

  let settings;
  try {
    settings = await poll(
      async () => {
        if (outcome) return { ended: true };
        const found = readSettings(join(stateDir, "dev.env"));
        return found && (await isReady(found.QUITTANCE_OPERATIONS_URL)) ? found : undefined;
      },
      { waitingFor: "quittance dev to be ready", timeoutMs: START_MS_MAX },
    );
  } catch (error) {
    await abandon(`was not ready in time (${error.message})`);
  }
  if (settings.ended) await abandon(`ended before it was ready (${outcome.signal ?? `exit status ${outcome.code}`})`);

  return {
    url: settings.QUITTANCE_URL,
    apiKey: settings.QUITTANCE_API_KEY,
    databaseUrl: settings.DATABASE_URL,
    binary: BINARY,
    envFile: join(stateDir, "dev.env"),
    rpcUrl: settings.RPC_URL,
    chainId: Number(settings.CHAIN_ID),
    usdc: settings.USDC_ADDRESS,

    /** Ends it as Ctrl-C does, and checks that it ended well and left nothing behind. */
    async stop() {
      const log = () => `its output was:\n${readLog(logFile)}`;
      const { outcome, left } = await end({ child, exited, run });
      process.off("exit", endAtExit);
      try {
        assert.deepEqual(outcome, { code: 0, signal: null }, `quittance dev did not end well; ${log()}`);
        assert.deepEqual(left, [], "quittance dev left processes behind");
        for (const name of ["QUITTANCE_URL", "QUITTANCE_OPERATIONS_URL", "RPC_URL", "DATABASE_URL"]) {
          assert.equal(await isListening(settings[name]), false, `something still listens at ${name}`);
        }
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  };
}

function spawnDev({ chainId, stateDir, logFile, run }) {
  const log = openSync(logFile, "w");
  const [name, value] = run.mark.split("=");
  const child = spawn(
    BINARY,
    [
      ["dev"],
      ["--state-dir", stateDir],
      ["--chain-id", String(chainId)],
      ["--block-time", "1"],
      ["--port", "0"],
      ["--operations-port", "0"],
      ["--chain-port", "0"],
      ["--postgres-port", "0"],
    ].flat(),
    // Its output goes to a file: a pipe would be held open by any child that outlived it.
    { cwd: REPOSITORY, env: { ...process.env, [name]: value }, stdio: ["ignore", log, log] },
  );
  closeSync(log);
  return child;
}

/** Interrupts it, waits, and ends by force whatever is left of this run. */
async function end({ child, exited, run }) {
  child.kill("SIGINT");
  const deadline = timer(STOP_MS_MAX, { code: null, signal: "no exit in time" });
  const outcome = await Promise.race([exited, deadline.expired]);
  deadline.clear();
  const left = processesOf(run);
  for (const { pid } of left) {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }
  return { outcome, left };
}

function timer(ms, value) {
  let handle;
  const expired = new Promise((done) => (handle = setTimeout(done, ms, value)));
  return { expired, clear: () => clearTimeout(handle) };
}

/** The living processes that inherited this run's mark or work inside its folder. Linux only; elsewhere none is found. */
function processesOf({ mark, folder }) {
  if (!existsSync("/proc/self/environ")) return [];
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .flatMap((pid) => {
      try {
        const inherited = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(mark);
        const inside = readlinkSync(`/proc/${pid}/cwd`).startsWith(`${folder}/`);
        if (!inherited && !inside) return [];
        return [{ pid: Number(pid), command: readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ").trim() }];
      } catch {
        // It ended while we looked, or it is another user's.
        return [];
      }
    });
}

function readSettings(file) {
  if (!existsSync(file)) return undefined;
  const lines = readFileSync(file, "utf8").split("\n").filter((line) => line.includes("="));
  const settings = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1).trim()]));
  // The last line may not be written yet.
  return settings.USDC_ADDRESS && settings.QUITTANCE_OPERATIONS_URL ? settings : undefined;
}

async function isReady(operationsUrl) {
  try {
    const response = await fetch(`${operationsUrl}/readyz`, { signal: AbortSignal.timeout(2_000) });
    await response.arrayBuffer();
    return response.status === 200;
  } catch {
    return false;
  }
}

function isListening(url) {
  const { hostname, port } = new URL(url);
  return new Promise((answer) => {
    const socket = connect({ host: hostname || "127.0.0.1", port: Number(port), timeout: 1_000 });
    const done = (listening) => {
      socket.destroy();
      answer(listening);
    };
    socket.once("connect", () => done(true));
    socket.once("error", () => done(false));
    socket.once("timeout", () => done(false));
  });
}

function readLog(file) {
  return existsSync(file) ? readFileSync(file, "utf8").slice(-8_000) : "";
}
