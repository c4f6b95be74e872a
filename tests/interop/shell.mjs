// One shell for a whole guide: what a block exports, the next one has, as in a reader's terminal.

import { spawn } from "node:child_process";
import { once } from "node:events";

/** How long a block may take: the first build of the Rust example is the longest. */
const BLOCK_MS_MAX = 300_000;

/** Starts bash in `cwd` with `env`. Every process that it starts is in its process group. */
export function openShell({ cwd, env }) {
  const child = spawn("bash", ["--noprofile", "--norc"], { cwd, env, detached: true, stdio: ["pipe", "pipe", "pipe"] });
  const exited = once(child, "exit");
  const said = { stdout: "", stderr: "" };
  let onOutput = () => {};
  for (const name of Object.keys(said)) {
    child[name].setEncoding("utf8");
    child[name].on("data", (text) => {
      said[name] += text;
      onOutput();
    });
  }
  let n = 0;

  return {
    /** Types a block and waits until its last command has ended; a job in the background may go on. */
    async run(text) {
      const mark = `end-of-block-${(n += 1)}`;
      said.stdout = said.stderr = "";
      const end = new RegExp(`^${mark} (\\d+)$`, "m");
      const ended = new Promise((done, fail) => {
        const timer = setTimeout(() => fail(new Error(`no end after ${BLOCK_MS_MAX} ms:\n${text}\n${said.stderr}`)), BLOCK_MS_MAX);
        onOutput = () => {
          const found = end.exec(said.stdout);
          if (!found) return;
          clearTimeout(timer);
          done({ status: Number(found[1]), stdout: said.stdout.slice(0, found.index), stderr: said.stderr });
        };
      });
      child.stdin.write(`${text}\nprintf '\\n%s %s\\n' ${mark} $?\n`);
      return ended;
    },

    /** Ends the shell and whatever it left running. */
    async close() {
      try {
        process.kill(-child.pid, "SIGTERM");
      } catch (error) {
        if (error.code !== "ESRCH") throw error;
      }
      child.stdin.end();
      await exited;
    },
  };
}
