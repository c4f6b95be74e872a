// docs/merchants.md, followed to the letter: its files are written down, its commands typed, and what
// they print is what it says they print. Then the table of what the SDKs show is measured again.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { accounts } from "../../anvil-scripts/lib/accounts.mjs";
import { freshPayee, pauper, payers } from "./accounts.mjs";
import { buyerV2 } from "./buyers.mjs";
import { openChain } from "./chain.mjs";
import { masked, readGuide, REPOSITORY } from "./guide.mjs";
import { BASE_SEPOLIA } from "./networks.mjs";
import { poll } from "./poll.mjs";
import { startQuittance } from "./quittance.mjs";
import { openShell } from "./shell.mjs";
import { openStandIn } from "./stand-in.mjs";

const INTEROP = resolve(REPOSITORY, "tests/interop");
const AMOUNT = 10_000n;
/** How long a seller may take to listen. */
const START_MS_MAX = 30_000;
/** How long a line may take from a seller's standard error to us. */
const LOG_MS_MAX = 2_000;
/** Commands that `make setup` has carried out, with other words: these must install what it installs. */
const INSTALLS = /^(?:npm install|python3 -m venv) /;
/** What starts the Quittance that the tests start themselves. */
const STARTS = /^make dev /;
const WRONG_KEY = `qk_test_${"0".repeat(72)}`;

const guide = readGuide();
let quittance;
let chain;
let folder;
let environment;
before(async () => {
  quittance = await startQuittance(BASE_SEPOLIA);
  chain = openChain(quittance);
  folder = await mkdtemp(join(tmpdir(), "quittance-guide-"));
  environment = readersEnvironment();
  await layOut(folder, quittance);
});
after(async () => {
  await quittance?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

describe("docs/merchants.md, typed from top to bottom", () => {
  let shell;
  let ports;
  before(async () => {
    shell = openShell({ cwd: folder, env: environment });
    ports = await portsFor(guide.commands.map(({ text }) => text).join());
  });
  after(() => shell?.close());

  for (const { heading, text, line, printed } of guide.commands) {
    it(`${heading}, line ${line}: ${text.split("\n")[0]}`, async () => {
      if (STARTS.test(text)) return assert.equal(text, `make dev ARGS='--chain-id ${BASE_SEPOLIA.chainId}'\n`);
      if (INSTALLS.test(text)) return assertInstalled(text);
      const payee = freshPayee();
      const isSale = /buyer/.test(text);
      if (isSale) await shell.run(`export PAY_TO=${payee}`);

      const { status, stdout, stderr } = await shell.run(withPorts(text, ports));

      assert.equal(status, 0, stderr);
      if (printed !== undefined) assert.equal(masked(stdout), masked(printed), stderr);
      if (isSale) await assertSold(stdout, payee);
    });
  }

  it("builds the Rust example from the versions that were tried", async () => {
    const lock = (path) => readFile(path, "utf8");
    assert.equal(await lock(join(folder, "first-sale/Cargo.lock")), await lock(join(INTEROP, "rust/Cargo.lock")));
  });

  it("has a sale in each of three languages", () => {
    assert.deepEqual(guide.commands.filter(({ text }) => /buyer/.test(text)).map(({ heading }) => heading), ["TypeScript", "Python", "Rust"]);
  });
});

describe("what each SDK shows", () => {
  const [head, , ...rows] = guide.tables.get("What each SDK shows");
  const sellers = {
    TypeScript: ["node", "seller.mjs"],
    Python: [".venv/bin/python", "seller.py"],
    Rust: [resolve(REPOSITORY, "target/guide/debug/seller")],
  };
  let standIn;
  before(async () => (standIn = await openStandIn({ quittance, network: BASE_SEPOLIA.v2 })));
  after(() => standIn?.close());

  for (const [column, language] of head.entries()) {
    if (column === 0) continue;
    describe(language, () => {
      const open = {};
      before(async () => {
        const start = (apiKey) => openSeller(sellers[language], { url: standIn.url, apiKey });
        open.seller = await start(quittance.apiKey);
        open.stranger = await start(WRONG_KEY);
      });
      after(() => Promise.all(Object.values(open).map((seller) => seller.close())));

      for (const row of rows) {
        it(row[0], async () => {
          const [, path, status, code] = /^`(\/\w+)` (\d+) `(\w+)`$/.exec(row[0]);
          const scripted = { path, status: Number(status), code };
          assert.equal(await whatIsShown(scripted, open, standIn), row[column]);
        });
      }
    });
  }

  it("measures each of the three", () => assert.deepEqual(head.slice(1), Object.keys(sellers)));
});

/** A reader's environment: the program, and the operator's settings for the Quittance that runs. */
function readersEnvironment() {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith("QUITTANCE"));
  return {
    ...Object.fromEntries(own),
    PATH: `${dirname(quittance.binary)}:${process.env.PATH}`,
    CARGO_TARGET_DIR: resolve(REPOSITORY, "target/guide"),
    CARGO_PROFILE_DEV_DEBUG: "0",
    QUITTANCE__DATABASE__URL: quittance.databaseUrl,
    QUITTANCE__CHAINS__LOCAL__ID: BASE_SEPOLIA.v2,
    QUITTANCE__CHAINS__LOCAL__RPC_URL: quittance.rpcUrl,
    QUITTANCE__CHAINS__LOCAL__TEST: "true",
    QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY: accounts().wallet.privateKey,
  };
}

/** The folder in which a reader would stand, with what they would have installed. */
async function layOut(folder, { envFile }) {
  await mkdir(join(folder, ".dev"));
  await symlink(envFile, join(folder, ".dev/dev.env"));
  const own = join(folder, "first-sale");
  await mkdir(own);
  for (const [name, text] of guide.files) {
    await mkdir(dirname(join(own, name)), { recursive: true });
    await writeFile(join(own, name), text);
  }
  await symlink(join(INTEROP, "node_modules"), join(own, "node_modules"));
  await symlink(join(INTEROP, "python/.venv"), join(own, ".venv"));
  await writeFile(join(own, "Cargo.lock"), await readFile(join(INTEROP, "rust/Cargo.lock")));
}

/** What the guide tells readers to install is what was installed here. */
async function assertInstalled(text) {
  const { dependencies } = JSON.parse(await readFile(join(INTEROP, "package.json"), "utf8"));
  const npm = Object.entries(dependencies).map(([name, version]) => `${name}@${version}`);
  const pip = (await readFile(join(INTEROP, "python/requirements.txt"), "utf8")).split("\n");
  const wanted = text.match(/\S+(?:@\d|==)[\w.]+/g).map((name) => name.replaceAll(/'|\[.*\]/g, ""));
  assert.deepEqual(wanted.filter((name) => !npm.includes(name) && !pip.includes(name)), [], "is not what the tests use");
}

/** The chain says that the payee was paid once, in the transaction that the buyer printed. */
async function assertSold(stdout, payee) {
  const [transaction] = stdout.match(/0x[0-9a-f]{64}/);
  const received = await chain.receivedBy(payee);
  assert.deepEqual(received.map(({ amount, transaction }) => ({ amount, transaction })), [{ amount: AMOUNT, transaction }]);
  assert.equal(await chain.balanceOf(payee), AMOUNT);
}

/** Free ports for those that the guide names. */
async function portsFor(text) {
  const named = new Set(text.match(/\b402\d\b/g).filter((port) => port !== "402"));
  return new Map(await Promise.all([...named].map(async (port) => [port, await freePort()])));
}

const withPorts = (text, ports) => text.replaceAll(/\b402\d\b/g, (port) => ports.get(port));

function freePort() {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** The guide's seller in one language, and what it logs. */
async function openSeller([command, ...args], { url, apiKey }) {
  const port = await freePort();
  const settings = { QUITTANCE_URL: url, QUITTANCE_API_KEY: apiKey, PAY_TO: freshPayee(), PORT: String(port) };
  const cwd = join(folder, "first-sale");
  const child = spawn(command, args, { cwd, env: { ...environment, ...settings }, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log += text));
  const exited = new Promise((done) => child.once("exit", done));
  const seller = {
    url: `http://127.0.0.1:${port}/weather`,
    log: () => log,
    async close() {
      child.kill();
      await exited;
    },
  };
  const listens = () => fetch(seller.url).then(() => true, () => undefined);
  await poll(listens, { waitingFor: `${command} to sell; it said: ${log}`, timeoutMs: START_MS_MAX });
  return seller;
}

/** Has a buyer meet that answer, and says in the guide's words where its code is found. */
async function whatIsShown({ path, status, code }, { seller, stranger }, standIn) {
  const account = code === "invalid_exact_evm_insufficient_balance" ? pauper : payers[0];
  const asked = code === "unauthorized" ? stranger : seller;
  const isReal = path === "/verify" && (status === 200 || status === 401);
  standIn.answerWith(isReal ? undefined : { path, status, code });
  const loggedBefore = asked.log().length;

  const response = await buyFrom(asked.url, account, code);

  assert.equal(response.status, 402, "every seller answers 402");
  assert.equal(response.headers.get("Retry-After"), null, "no seller passes Retry-After on");
  const places = {
    terms: decoded(response, "PAYMENT-REQUIRED")?.error ?? "",
    receipt: decoded(response, "PAYMENT-RESPONSE")?.errorReason ?? "",
    body: await response.text(),
  };
  const found = Object.entries(places).filter(([, text]) => text.includes(code));
  assert.equal(found.length, 1, `${code} is in one place: ${JSON.stringify(places)}`);
  const [[place, text]] = found;
  const isBare = text === code || text.startsWith(`${code}: `);
  const words = [isBare ? place : `${place}, quoted`];
  if (await isLogged(asked, loggedBefore, code)) words.push("logged");
  if (standIn.nAnswered() > 1) words.push(`asks ${standIn.nAnswered()} times`);
  return words.join("; ");
}

/** The answer to a buyer; where the code is that of a spent payment, to one who sends it once more. */
async function buyFrom(url, account, code) {
  const { response, header } = await buyerV2.pay({ account, network: BASE_SEPOLIA, url });
  if (code !== "invalid_exact_evm_nonce_already_used") return response;
  assert.equal(response.status, 200);
  await response.arrayBuffer();
  return fetch(url, { headers: { "PAYMENT-SIGNATURE": header } });
}

function decoded(response, name) {
  const header = response.headers.get(name);
  return header === null ? undefined : JSON.parse(Buffer.from(header, "base64").toString("utf8"));
}

async function isLogged(seller, from, code) {
  const deadline = Date.now() + LOG_MS_MAX;
  while (Date.now() < deadline) {
    if (seller.log().slice(from).includes(code)) return true;
    await delay(50);
  }
  return false;
}
