// npm start: a daemon to try out, with a scheduler and an engine, from nothing but Node and npm.
//
//   npm start              runs until Ctrl-C
//   npm start -- --demo    drives one sandbox through its life, cleans up, exits 0 if all of it worked
//
// It uses the Docker engine that runs here; where none does, as root on Debian, a private one that it stops again.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { ensureBuild } from "./lib/build.mjs";
import { isServing, openClient } from "./lib/client.mjs";
import { ensureDependencies } from "./lib/deps.mjs";
import { devConfig } from "./lib/dev-config.mjs";
import { findEngine, installEngine, startPrivateEngine } from "./lib/engine.mjs";
import { callJson } from "./lib/engine-api.mjs";
import { ensureBaseImage } from "./lib/image.mjs";
import {
  assertUnclaimed,
  claim,
  engineMark,
  removeAbandoned,
  removeEngine,
  temporaryDirectory,
} from "./lib/leftovers.mjs";
import { shareMounts, unmountIn } from "./lib/mounts.mjs";
import { launcher } from "./lib/node.mjs";
import { Advice, main, root, stop, until } from "./lib/process.mjs";
import { nameserver, openWayOut, relay } from "./lib/way-out.mjs";

const log = (line) => console.log(`start: ${line}`);

/** The longest path that the kernel takes for a unix socket. */
const socketPathBytes = 107;

/** A port of loopback that is free now; `wanted` if given, with advice when it is not. */
function freePort(wanted = 0) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", () =>
      reject(new Advice(`port ${wanted} of 127.0.0.1 is in use: stop what listens there`)),
    );
    server.listen(wanted, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Where this run keeps its things. A demonstration has its own of everything, so that it can run beside another. */
async function plan(isDemo) {
  if (isDemo) {
    const name = `sandboxd-demo-${process.pid}`;
    const directory = path.join(temporaryDirectory, name);
    return { name, directory, daemonPort: await freePort(), schedulerPort: await freePort() };
  }
  // One per checkout: two of them may share an engine.
  const name = `sandboxd-dev-${createHash("sha256").update(root).digest("hex").slice(0, 8)}`;
  const directory = path.join(root, ".dev");
  assertUnclaimed(directory);
  // What a run that was killed has left of its daemon and engine, its data excepted.
  await removeEngine(name);
  await unmountIn(directory);
  return { name, directory, daemonPort: await freePort(7070), schedulerPort: await freePort(7071) };
}

/** The engine that runs here, or a private one. Returns `{ socket, engine }`, `engine` only when it is private. */
async function prepareEngine({ name, directory }, isDemo) {
  const found = await findEngine();
  if (found) {
    log(`using the Docker engine at ${found}`);
    await ensureBaseImage(found, { log, registry: true });
    return { socket: found };
  }
  await installEngine({ log });
  shareMounts(directory);
  const engine = await startPrivateEngine({
    directory: path.join(directory, "engine"),
    name,
    log,
    keep: !isDemo,
  });
  try {
    await ensureBaseImage(engine.socket, { log, registry: false });
    await openWayOut(engine, { log });
  } catch (error) {
    await engine.stop();
    throw error;
  }
  return { socket: engine.socket, engine };
}

/**
 * Starts one of the program's commands, its output to a file, `within` what goes before it. Returns `{ child, ended }`: `ended` is a promise that fails,
 * with the last lines of that file, when the program ends before it is told to.
 */
function launch(name, within, args, logFile) {
  const output = openSync(logFile, "w");
  const [command, ...rest] = [...within, launcher, ...args];
  const child = spawn(command, rest, {
    stdio: ["ignore", output, output],
    cwd: root,
    env: { ...process.env, [engineMark]: name },
    // A Ctrl-C is for this runner, which stops them in order.
    detached: true,
  });
  closeSync(output);
  const ended = new Promise((_, reject) => {
    child.once("exit", (code, signal) => {
      const lines = readFileSync(logFile, "utf8").trim().split("\n").slice(-5).join("\n");
      reject(new Advice(`sandboxd ${args[0]} ended (${code ?? signal}); its last lines:\n${lines}`));
    });
  });
  // Looked at only while it matters; an orderly stop is no failure.
  ended.catch(() => {});
  return { child, ended };
}

/** Removes what a demonstration left in an engine that is not its own. */
async function removeContainers(hostId, socket) {
  const filters = encodeURIComponent(JSON.stringify({ label: [`sandboxd.host=${hostId}`] }));
  for (const { Id } of await callJson(socket, "GET", `/containers/json?all=1&filters=${filters}`)) {
    await callJson(socket, "DELETE", `/containers/${Id}?force=1&v=1`);
  }
}

function printHints(port, socket, directory) {
  const address = `127.0.0.1:${port}`;
  const create = `'{"tenant":"me","sandbox_id":"first","spec":{"template":"shell"}}'`;
  const buf = "npx buf curl --http2-prior-knowledge --protocol grpc";
  console.log(`
sandboxd serves on ${address} and on ${socket}. Try, in another terminal:

  ${buf} -d ${create} \\
    http://${address}/sandboxd.v1.SandboxService/CreateSandbox
  ${buf} http://${address}/sandboxd.v1.HostService/GetHost
  grpcurl -plaintext ${address} list
  grpcurl -plaintext -d '{"sandbox_id":"first","follow":true}' ${address} \\
    sandboxd.v1.SandboxService/StreamLogs

Logs: ${directory}/sandboxd.log, ${directory}/scheduler.log. Ctrl-C stops it.
`);
}

/** Resolves when SIGINT or SIGTERM comes. */
function interruption() {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => resolve("interrupted"));
  });
}

/** Starts everything; pushes onto `closers` what undoes each step. Returns how to reach it, and when it fails. */
async function startAll(place, isDemo, closers) {
  const { name, directory, daemonPort, schedulerPort } = place;
  const inDirectory = path.join(directory, "sandboxd.sock");
  const socket = Buffer.byteLength(inDirectory) <= socketPathBytes ? inDirectory : `/tmp/${name}.sock`;
  const stateDirectory = path.join(directory, "state");
  const configFile = path.join(directory, "sandboxd.toml");
  const logs = {
    scheduler: path.join(directory, "scheduler.log"),
    daemon: path.join(directory, "sandboxd.log"),
  };
  const schedulerAddress = `127.0.0.1:${schedulerPort}`;

  closers.push(() => (isDemo ? removeEngine(name, directory) : rmSync(path.join(directory, "owner.json"))));
  claim(directory, { name, directory, keep: !isDemo });
  closers.push(() => unmountIn(directory));
  const { socket: engineSocket, engine } = await prepareEngine(place, isDemo);
  closers.push(async () => {
    if (engine) {
      log("stopping the private engine, and with it the sandboxes");
      await engine.stop();
    } else if (isDemo) {
      await removeContainers(name, engineSocket);
    } else {
      log("sandboxes keep running");
    }
  });

  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
  const config = devConfig({
    hostId: name,
    stateDirectory,
    engine: engineSocket,
    // Where we remove the sandboxes, below our name, so that the cgroup goes with them.
    cgroupParent: engine || isDemo ? `/${name}-sandboxes` : "/sandboxd-dev",
    socket,
    address: `127.0.0.1:${daemonPort}`,
    scheduler: schedulerAddress,
    ...(engine ? { resolver: nameserver } : {}),
  });
  writeFileSync(configFile, config, { mode: 0o600 });

  // networks of sandboxes are where the engine is: there the daemon has to be, and whom it reports to
  const within = engine ? ["nsenter", `--net=/proc/${engine.namespacePid}/ns/net`, "--"] : [];
  const scheduler = launch(name, within, ["dev-scheduler", "--listen", schedulerAddress], logs.scheduler);
  closers.push(() => stop(scheduler.child));
  const daemon = launch(name, within, ["serve", "--dev", "--config", configFile], logs.daemon);
  closers.push(() => stop(daemon.child, { graceMs: 20_000 }));
  if (engine) closers.push(await relay(daemonPort, socket));
  const client = await openClient(socket);
  closers.push(() => client.close());

  const failed = Promise.race([scheduler.ended, daemon.ended]);
  failed.catch(() => {});
  const serving = until(async () => ((await isServing(client)) ? true : undefined), {
    timeoutMs: 30_000,
    what: `the daemon did not serve (see ${logs.daemon})`,
  });
  await Promise.race([serving, failed]);
  return { client, socket, failed, logs };
}

await main(async () => {
  const isDemo = process.argv.includes("--demo");
  const interrupted = interruption();
  await ensureDependencies({ log });
  await ensureBuild({ log });
  await removeAbandoned();
  const place = await plan(isDemo);
  const closers = [];
  try {
    const { client, socket, failed, logs } = await startAll(place, isDemo, closers);
    if (isDemo) {
      const { demonstrate } = await import("./demo.mjs");
      const shown = demonstrate(client, console.log).catch((error) => {
        console.error(`the daemon's log:\n${readFileSync(logs.daemon, "utf8")}`);
        throw error;
      });
      const outcome = await Promise.race([shown, interrupted, failed]);
      return outcome === "interrupted" ? 130 : 0;
    }
    printHints(place.daemonPort, socket, place.directory);
    await Promise.race([interrupted, failed]);
    log("stopping");
    return 0;
  } finally {
    for (const close of closers.reverse()) await close();
  }
});
