// What a private engine's network namespace has of the world around it: a way out to where this host gets, and a way in to one
// socket. Neither changes anything of the host's own network.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { engineMark } from "./leftovers.mjs";
import { installPackages } from "./packages.mjs";

/** Where slirp4netns answers for the host's nameserver, wherever that is (slirp4netns(1)). */
export const nameserver = "10.0.2.3";

/** It takes some 50 ms. */
const readyMs = 10_000;
/** What an engine has begun is killed all at once. */
const goneMs = 1_000;

/**
 * Connects the namespace to the internet, as far as this host is, by a process that opens its connections anew out here
 * (slirp4netns). It goes with the engine whose `name` it bears. Says so where that cannot be had: everything else works without.
 */
export async function openWayOut({ name, namespacePid }, { log }) {
  try {
    await installPackages(["slirp4netns"], { log, why: "a way to the internet for sandboxes" });
    const options = ["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3"];
    const child = spawn("slirp4netns", [...options, String(namespacePid), "tap0"], {
      stdio: ["ignore", "ignore", "ignore", "pipe"],
      env: { ...process.env, [engineMark]: name },
      detached: true,
    });
    const ended = once(child, "exit").then(([code, signal]) => {
      throw new Error(`slirp4netns ended with ${code ?? signal}`);
    });
    const isReady = once(child.stdio[3], "data", { signal: AbortSignal.timeout(readyMs) });
    await Promise.race([isReady, ended]);
    ended.catch(async ({ message }) => {
      // together with the engine it ends as it should
      await sleep(goneMs, undefined, { ref: false });
      if (isRunning(namespacePid)) log(`sandboxes reach no internet until this is started again: ${message}`);
    });
  } catch (error) {
    log(`sandboxes reach no internet here: ${error.message}`);
  }
}

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Takes connections at a port of this host's loopback and joins each with a new one to a unix socket. Returns what ends it. */
export async function relay(port, socket) {
  const joined = new Set();
  const server = createServer({ allowHalfOpen: true }, (outer) => {
    const inner = connect({ path: socket, allowHalfOpen: true });
    for (const [from, to] of [
      [outer, inner],
      [inner, outer],
    ]) {
      joined.add(from);
      from.pipe(to);
      from.once("error", () => to.destroy());
      from.once("close", () => {
        joined.delete(from);
        to.destroy();
      });
    }
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return () => {
    server.close();
    for (const one of joined) one.destroy();
  };
}
