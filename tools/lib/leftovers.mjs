// What a private engine leaves behind, found by its name: processes, cgroups, folders. Used when one is stopped,
// and to clean up after a runner that was killed before it could stop its engine.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { unmountIn } from "./mounts.mjs";
import { Advice, startTime } from "./process.mjs";

/**
 * In the environment of every process of a private engine, and of every daemon that a tool or a test starts: the name.
 * It doesn't begin with SANDBOXD_: there, the daemon refuses what is no key of its configuration.
 */
export const engineMark = "TOOL_OF_SANDBOXD";

/** Where a private engine keeps its sockets: short, because a unix socket's path has 107 bytes at most. */
export const runtimeDirectory = (name) => `/run/${name}`;

/** Where runners keep their files: on disk, unlike /tmp on many machines. */
export const temporaryDirectory = "/var/tmp";

const ownerFile = "owner.json";

const namePattern = /^sandboxd-(test|demo|dev|fault|bench)-[a-z0-9-]+$/;

/** Fails unless the name is one of a private engine: what bears such a name may be killed and removed. */
export function assertEngineName(name) {
  if (!namePattern.test(name))
    throw new Error(`${name}: not a private engine's name (${namePattern.source})`);
}

/** Reads a file of /proc; undefined when its process has gone meanwhile. */
function readProc(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch (error) {
    if (["ENOENT", "ESRCH", "EACCES"].includes(error.code)) return undefined;
    throw error;
  }
}

const pids = () =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

/**
 * The processes of a private engine: those with its mark in their environment, and all below them. A container's
 * processes have no mark, but descend from their shim; a process that has ended its parent is in the cgroup.
 */
function processesOf(name) {
  const all = pids();
  const found = new Set(cgroupsOf(name).flatMap(membersOf));
  for (const pid of all) {
    if (readProc(pid, "environ")?.split("\0").includes(`${engineMark}=${name}`)) found.add(pid);
  }
  const parents = new Map();
  for (const pid of all) {
    const stat = readProc(pid, "stat");
    if (stat) parents.set(pid, Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
  }
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid);
  }
  // The runner itself may bear the mark, when it was started by a test.
  for (let pid = process.pid; pid > 1 && pid !== undefined; pid = parents.get(pid)) found.delete(pid);
  return [...found].filter((pid) => startTime(pid) !== undefined);
}

/** The engine's cgroups in every hierarchy, deepest first: those of its name, and of `NAME-…`, given to daemons. */
function cgroupsOf(name) {
  const base = "/sys/fs/cgroup";
  const isOurs = (directory) =>
    path.basename(directory) === name || path.basename(directory).startsWith(`${name}-`);
  const top = foldersIn(base);
  const below = (directory) => [...foldersIn(directory).flatMap(below), directory];
  return [...top, ...top.flatMap(foldersIn)].filter(isOurs).flatMap(below);
}

function foldersIn(directory) {
  try {
    const entries = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return entries.map((entry) => path.join(directory, entry.name));
  } catch (error) {
    if (error.code === "ENOENT") return [];
    throw error;
  }
}

function membersOf(cgroup) {
  try {
    return readFileSync(path.join(cgroup, "cgroup.procs"), "utf8").split("\n").filter(Boolean).map(Number);
  } catch (error) {
    if (["ENOENT", "ENODEV"].includes(error.code)) return [];
    throw error;
  }
}

/**
 * Ends what bears the engine's name and removes its cgroups and sockets, and `directory` when given. Its mounts and
 * its network go by themselves: they live in namespaces that only its processes hold. What tests have mounted below
 * `directory` is unmounted, and its loop devices go with it.
 */
export async function removeEngine(name, directory) {
  assertEngineName(name);
  for (let round = 0; ; round += 1) {
    const left = processesOf(name);
    if (left.length === 0) break;
    if (round > 100) throw new Error(`processes of ${name} do not end: ${left.join(", ")}`);
    for (const cgroup of cgroupsOf(name)) thaw(cgroup);
    for (const pid of left) signalIfThere(pid);
    await sleep(50);
  }
  await removeCgroups(name);
  if (directory) await unmountIn(directory);
  if (directory) rmSync(directory, { recursive: true, force: true });
  rmSync(runtimeDirectory(name), { recursive: true, force: true });
}

/**
 * Removes the cgroups of a name, which no process may be in any more. Fails when that is not so within 5 s.
 *
 * @public for the tests' harness
 */
export async function removeCgroups(name) {
  for (let round = 0; ; round += 1) {
    const left = cgroupsOf(name).filter((cgroup) => !removed(cgroup));
    if (left.length === 0) return;
    if (round > 100) throw new Error(`cgroups of ${name} cannot be removed: ${left.join(", ")}`);
    await sleep(50);
  }
}

/** Frozen by cgroup v1, a process ends by no signal. */
function thaw(cgroup) {
  const file = path.join(cgroup, "freezer.state");
  try {
    if (existsSync(file)) writeFileSync(file, "THAWED");
  } catch (error) {
    if (!["ENOENT", "ENODEV"].includes(error.code)) throw error;
  }
}

function signalIfThere(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

function removed(cgroup) {
  try {
    rmdirSync(cgroup);
    return true;
  } catch (error) {
    if (error.code === "ENOENT") return true;
    // The kernel is still tearing down what ran in it.
    if (error.code === "EBUSY") return false;
    throw error;
  }
}

/** Fails when the folder was claimed by another process that still runs. */
export function assertUnclaimed(folder) {
  const file = path.join(folder, ownerFile);
  if (!existsSync(file)) return;
  const { pid, startTime: started } = JSON.parse(readFileSync(file, "utf8"));
  if (pid !== process.pid && startTime(pid) === started) {
    throw new Advice(`process ${pid} already uses ${folder}: stop it first`);
  }
}

/**
 * Writes down, in a folder, that this process is the owner of a name and of `directory`. Whoever finds it after this
 * process has ended removes them (removeAbandoned), `directory` only without `keep`.
 */
export function claim(folder, { name, directory, keep = false }) {
  assertEngineName(name);
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  const owner = { name, pid: process.pid, startTime: startTime(process.pid), directory, keep };
  writeFileSync(path.join(folder, ownerFile), JSON.stringify(owner));
}

/** Removes what was claimed by processes that have ended without removing it. Returns the names. */
export async function removeAbandoned() {
  const abandoned = new Set();
  for (const folder of [temporaryDirectory, "/run"].flatMap(foldersIn)) {
    const file = path.join(folder, ownerFile);
    if (!namePattern.test(path.basename(folder)) || !existsSync(file) || !isOurs(file)) continue;
    const owner = JSON.parse(readFileSync(file, "utf8"));
    if (startTime(owner.pid) === owner.startTime) continue;
    await removeEngine(owner.name, owner.keep ? undefined : owner.directory);
    abandoned.add(owner.name);
  }
  return [...abandoned];
}

/** What another user has put into a folder open to all must not tell us what to remove. */
const isOurs = (file) => statSync(file).uid === process.getuid();
