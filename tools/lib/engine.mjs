// A private Docker Engine: its own data, sockets, mounts, network and cgroups, so that nothing of the user's engine is
// seen or touched. Also finds the engine that already runs.
import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { answers } from "./engine-api.mjs";
import {
  assertEngineName,
  assertUnclaimed,
  claim,
  engineMark,
  removeEngine,
  runtimeDirectory,
} from "./leftovers.mjs";
import { installPackages } from "./packages.mjs";
import { Advice, stop as stopChild, until } from "./process.mjs";

/** The socket of an engine that runs already and answers: DOCKER_HOST, the system's, or the user's own. */
export async function findEngine() {
  const host = process.env.DOCKER_HOST;
  if (host) {
    if (!host.startsWith("unix://"))
      throw new Advice(`DOCKER_HOST=${host}: only unix:// sockets work, unset it`);
    const socket = host.slice("unix://".length);
    if (await answers(socket)) return socket;
    throw new Advice(`DOCKER_HOST=${host} does not answer: start that engine, or unset DOCKER_HOST`);
  }
  const own = process.env.XDG_RUNTIME_DIR && path.join(process.env.XDG_RUNTIME_DIR, "docker.sock");
  for (const socket of ["/var/run/docker.sock", own]) {
    if (socket && (await answers(socket))) return socket;
  }
  return undefined;
}

/** Installs what a private engine is made of: engine, a user land for the base image, `ip`, `nft` and `unshare`. */
export async function installEngine({ log }) {
  if (process.getuid() !== 0) {
    throw new Advice(
      "no Docker engine answers and this is not root: start one, set DOCKER_HOST, or run this as root",
    );
  }
  const programs = ["/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/local/bin/dockerd"];
  const hasEngine = programs.some((program) => existsSync(program));
  const names = [...(hasEngine ? [] : ["docker.io"]), "busybox-static", "iproute2", "nftables", "util-linux"];
  try {
    await installPackages(names, { log, why: "a private Docker engine" });
  } catch (error) {
    if (error instanceof Advice || hasEngine) throw error;
    throw new Advice(
      "no Docker engine answers and this is not Debian: install Docker and start it, then run again",
    );
  }
}

/** Holds the namespaces open, so that a killed engine can be started again inside the same ones. */
async function openNamespaces(environment) {
  // Shims put their sockets into /run/containerd whatever the configuration says.
  const script = `set -e
    for directory in /run/containerd /run/docker; do
      mkdir -p $directory
      mount -t tmpfs tmpfs $directory
    done
    ip link set lo up
    echo ready
    exec sleep infinity`;
  const holder = spawn("unshare", ["--net", "--mount", "--propagation", "slave", "sh", "-c", script], {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    env: environment,
  });
  let output = "";
  holder.stdout.on("data", (chunk) => {
    output += chunk;
  });
  holder.stderr.on("data", (chunk) => {
    output += chunk;
  });
  await until(
    () => {
      if (holder.exitCode !== null) throw new Advice(`namespaces cannot be made here: ${output.trim()}`);
      return output.includes("ready") ? true : undefined;
    },
    { timeoutMs: 10_000, what: "namespaces did not open" },
  );
  return holder;
}

/**
 * Starts a private engine and waits until it answers.
 *
 * - `directory`: holds its data and its log; `stop` removes it unless `keep`.
 * - `name`: `sandboxd-test-…`, `-demo-…`, `-dev-…`, `-fault-…` or `-bench-…`; also its parent cgroup (`/NAME`) and, in
 *   /run, the folder of its sockets. Everything that bears this name is removed at the end.
 * - `liveRestore`: whether its containers outlive it (false).
 * - `keep`: whether its data stay for a next start (false).
 *
 * Returns `{ socket, name, namespacePid, pid, containerdPid, kill, freeze, thaw, restart, stop }`. `kill` ends the engine at once, with
 * SIGKILL, and leaves the rest as it is; `restart` ends it in an orderly way if it runs and starts it again, in the same
 * namespaces. `stop` is idempotent and must be called in every case.
 */
export async function startPrivateEngine({ directory, name, log, liveRestore = false, keep = false }) {
  assertEngineName(name);
  const runtime = runtimeDirectory(name);
  const socket = path.join(runtime, "docker.sock");
  const logFile = path.join(directory, "engine.log");
  assertUnclaimed(runtime);
  await removeEngine(name);
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  claim(runtime, { name, directory, keep });

  const environment = { ...process.env, [engineMark]: name };
  delete environment.DOCKER_HOST;
  const containerdSocket = path.join(runtime, "containerd.sock");
  let holder;
  let containerd;
  let engine;

  const launch = async (program, args, isUp) => {
    const output = openSync(logFile, "a");
    const child = spawn("nsenter", ["--target", String(holder.pid), "--mount", "--net", program, ...args], {
      // Its own session: a Ctrl-C at the terminal is for the runner, which stops the engine last.
      detached: true,
      stdio: ["ignore", output, output],
      env: environment,
    });
    closeSync(output);
    const look = async () => {
      if (!isRunning(child)) throw new Advice(`${program} ended: ${lastLines(logFile)}`);
      return (await isUp()) ? true : undefined;
    };
    await until(look, { timeoutMs: 60_000, what: `${program} was not up (see ${logFile})` });
    return child;
  };

  const start = async () => {
    // containerd is started apart, as on a real host: it and the containers outlive an engine that is killed.
    if (!containerd || !isRunning(containerd)) {
      const file = path.join(runtime, "containerd.toml");
      writeFileSync(file, containerdSettings(directory, runtime, containerdSocket));
      rmSync(containerdSocket, { force: true });
      containerd = await launch("containerd", ["--config", file], () => existsSync(containerdSocket));
    }
    const file = path.join(runtime, "daemon.json");
    writeFileSync(file, JSON.stringify(engineSettings(name, liveRestore)));
    const pidFile = path.join(runtime, "docker.pid");
    // A killed engine leaves its pid file, and one that finds its own old pid in use refuses to start.
    rmSync(pidFile, { force: true });
    const args = [
      ...[
        "--config-file",
        file,
        "--host",
        `unix://${socket}`,
        "--pidfile",
        pidFile,
        "--containerd",
        containerdSocket,
      ],
      ...["--data-root", path.join(directory, "data"), "--exec-root", path.join(runtime, "exec")],
    ];
    engine = await launch("dockerd", args, () => answers(socket));
  };

  const stop = async () => {
    // Not in an orderly way: nothing of it is to last but the image of a kept one, which is on disk.
    if (keep && engine) {
      engine.kill("SIGCONT");
      await stopChild(engine, { graceMs: 15_000 });
    }
    await removeEngine(name, keep ? undefined : directory);
  };

  log("starting a private Docker engine");
  try {
    holder = await openNamespaces(environment);
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    socket,
    name,
    namespacePid: holder.pid,
    get pid() {
      return engine.pid;
    },
    get containerdPid() {
      return containerd.pid;
    },
    kill: () => stopChild(engine, { signal: "SIGKILL" }),
    freeze: async () => {
      engine.kill("SIGSTOP");
      const what = "the engine did not freeze";
      await until(() => (isFrozen(engine.pid) ? true : undefined), { timeoutMs: 5_000, what, everyMs: 5 });
    },
    thaw: () => engine.kill("SIGCONT"),
    restart: async (options = {}) => {
      await stopChild(engine, { graceMs: 30_000 });
      liveRestore = options.liveRestore ?? liveRestore;
      await start();
    },
    stop,
  };
}

/** Whether every thread of the process is stopped: the signal is sent to all, but each stops when it next runs. */
function isFrozen(pid) {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
  });
}

const isRunning = (child) => child.exitCode === null && child.signalCode === null;

/** The engine's configuration: small subnets, as the default pools give about 30 networks; no wait for containers. */
function engineSettings(name, liveRestore) {
  return {
    "cgroup-parent": `/${name}`,
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "default-address-pools": [{ base: "10.213.0.0/16", size: 26 }],
    "live-restore": liveRestore,
    "shutdown-timeout": 1,
    "log-level": "warn",
  };
}

function containerdSettings(directory, runtime, socket) {
  return `version = 2
root = "${directory}/containerd"
state = "${runtime}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "${socket}"
[debug]
level = "warn"
`;
}

function lastLines(logFile) {
  const lines = readFileSync(logFile, "utf8").trim().split("\n");
  return lines.slice(-2).join(" ");
}
