// One anvil process of ours: finding the program, starting it, knowing that it listens, ending it.

import { spawn, spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { endpoint } from "./rpc.mjs";

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 3_000;
const LISTENING = /^Listening on (127\.0\.0\.1:\d+)$/;
const N_STDERR_MAX = 4_096;

/**
 * Starts anvil on 127.0.0.1 and waits until it listens: `{rpc, rpcUrl, wsUrl, pid, exited, end}`.
 * The signal `stop` ends it, at whatever point it is.
 * Port 0 lets the kernel choose. The port is read from anvil's own output, so it cannot be somebody else's node.
 */
export async function startAnvil({ port, args, stop }) {
  const [program, ...words] = commandLine(["--host", "127.0.0.1", "--port", String(port), ...args]);
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? `status ${code}`));
    child.once("error", (error) => resolve(error.code));
  });
  const complaint = tail(child.stderr);
  const end = () => endChild(child, exited);
  if (stop.aborted) await end();
  else stop.addEventListener("abort", end, { once: true });
  try {
    const address = await listening(child, exited, () => explain(complaint(), port));
    const rpcUrl = `http://${address}`;
    const rpc = endpoint(rpcUrl);
    await rpc("anvil_setLoggingEnabled", false);
    return { rpc, rpcUrl, wsUrl: `ws://${address}`, pid: child.pid, exited, end };
  } catch (error) {
    await end();
    throw error;
  }
}

function listening(child, exited, why) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`anvil did not listen within ${START_TIMEOUT_MS} ms`)), START_TIMEOUT_MS);
    // The interface stays for good: output that no one reads would block anvil in the end.
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = line.match(LISTENING);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[1]);
    });
    exited.then((how) => {
      clearTimeout(timer);
      reject(new Error(why() ?? `anvil ended with ${how} before it listened`));
    });
  });
}

function explain(complaint, port) {
  if (complaint.includes("Address already in use")) return `port ${port} is taken`;
  const line = complaint.split("\n").find((text) => text.trim() !== "");
  // The address of a chain to fork may hold an API key in its path.
  return line && `anvil could not start: ${line.replace(/^Error:\s*/, "").replace(/(https?:\/\/[^\s/]+)\S*/g, "$1")}`;
}

async function endChild(child, exited) {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}

function tail(stream) {
  let text = "";
  stream.setEncoding("utf8").on("data", (data) => (text = (text + data).slice(-N_STDERR_MAX)));
  return () => text;
}

// With setpriv the kernel ends anvil when we are killed in a way that leaves us no time to do it.
// It replaces itself by anvil, so the process id is anvil's.
function commandLine(args) {
  const setpriv = ["setpriv", "--pdeathsig", "KILL", "--"];
  const works = spawnSync(setpriv[0], [...setpriv.slice(1), "true"], { stdio: "ignore" }).status === 0;
  return [...(works ? setpriv : []), program(), ...args];
}

// npm's own launcher would put a second process between us and anvil.
function program() {
  if (process.env.ANVIL_BIN) return process.env.ANVIL_BIN;
  const machine = { x64: "amd64", arm64: "arm64" }[process.arch];
  const name = `@foundry-rs/anvil-${process.platform}-${machine}`;
  try {
    return join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), "bin/anvil");
  } catch {
    throw new Error(`${name} is not installed: run \`npm ci\` in anvil-scripts, or name an anvil in ANVIL_BIN`);
  }
}
