// Compares the machine before and after a check: what our tools or tests could leave on it.
//
//   node tools/traces.mjs save FILE       writes what is there now
//   node tools/traces.mjs compare FILE    fails when there is something that was not
//
// Processes of other programs come and go, so only those that could be ours are looked at.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findEngine } from "./lib/engine.mjs";
import { callJson } from "./lib/engine-api.mjs";
import { engineMark } from "./lib/leftovers.mjs";
import { Advice, main } from "./lib/process.mjs";

/** What has just been told to end may take this long. */
const patienceMs = 5_000;

/** Reads a thing that may vanish while it is looked at. */
function attempt(read, otherwise) {
  try {
    return read();
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ESRCH", "EACCES", "EINVAL", "ENODEV"].includes(error.code)) return otherwise;
    throw error;
  }
}

const entries = (directory) => attempt(() => readdirSync(directory), []);
const named = (directory, pattern) => entries(directory).filter((name) => pattern.test(name));

const programs = /(^|\/)(dockerd|containerd|containerd-shim\S*|runc)(\s|$)|dist\/bundle\/sandboxd\.js|vitest/;

function processes() {
  return named("/proc", /^\d+$/).flatMap((pid) => {
    const command = attempt(() => readFileSync(`/proc/${pid}/cmdline`, "latin1"), "")
      .split("\0")
      .join(" ")
      .trim();
    const environment = attempt(() => readFileSync(`/proc/${pid}/environ`, "latin1"), "");
    const isOurs = programs.test(command) || environment.includes(`${engineMark}=`);
    return command !== "" && isOurs ? [`process ${pid}: ${command.slice(0, 120)}`] : [];
  });
}

/** Those without a name end with the processes in them, which are looked at themselves. */
function networks() {
  const interfaces = entries("/sys/class/net").map((name) => `network interface ${name}`);
  return [...interfaces, ...entries("/run/netns").map((name) => `network namespace ${name}`)];
}

function loops() {
  return named("/sys/block", /^loop/).flatMap((name) => {
    const file = attempt(() => readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8"), undefined);
    return file === undefined ? [] : [`loop device ${name}: ${file.trim()}`];
  });
}

function cgroups() {
  const hierarchies = entries("/sys/fs/cgroup").map((name) => path.join("/sys/fs/cgroup", name));
  return ["/sys/fs/cgroup", ...hierarchies].flatMap((directory) =>
    named(directory, /^sandboxd/).map((name) => `cgroup ${path.join(directory, name)}`),
  );
}

async function containers() {
  const socket = await findEngine();
  if (socket === undefined) return [];
  const found = await callJson(socket, "GET", "/containers/json?all=1");
  return found.map(({ Id, Names }) => `container ${Id.slice(0, 12)} ${Names.join(" ")}`);
}

async function traces() {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").trim().split("\n");
  return [
    ...processes(),
    ...(await containers()),
    ...mounts.map((line) => `mount ${line.split(" ")[4]}`),
    ...networks(),
    ...loops(),
    ...cgroups(),
    ...["/run", "/tmp", "/var/tmp"].flatMap((directory) =>
      named(directory, /^sandboxd/).map((name) => `file ${path.join(directory, name)}`),
    ),
  ];
}

await main(async () => {
  const [verb, file] = process.argv.slice(2);
  if (file === undefined || !["save", "compare"].includes(verb)) {
    throw new Advice("usage: node tools/traces.mjs save|compare FILE");
  }
  if (verb === "save") {
    writeFileSync(file, JSON.stringify(await traces()));
    return 0;
  }
  const before = new Set(JSON.parse(readFileSync(file, "utf8")));
  const end = performance.now() + patienceMs;
  for (;;) {
    const left = (await traces()).filter((trace) => !before.has(trace));
    if (left.length === 0) {
      console.log("nothing is left behind");
      return 0;
    }
    if (performance.now() > end) throw new Advice(`left behind:\n${left.join("\n")}`);
    await sleep(200);
  }
});
