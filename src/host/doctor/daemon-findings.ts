// What is found about the daemon's own place on the host: its files, its programs, and how much it may open.

import { X509Certificate } from "node:crypto";
import { constants, readFileSync } from "node:fs";
import { access, readFile, statfs } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { messageOf } from "../../errors.ts";
import type { ConditionFacts, ConditionType } from "../../sandbox/repository.ts";
import { type Finding, failed, ok, unknown, warning } from "./finding.ts";

const dayMs = 86_400_000;

/** How long before its end a certificate is worth a word. */
const renewalMs = 14 * dayMs;

/** Measured: 1,313 with some 104 sandboxes under version 1 of cgroups, which has the more files. Besides: callers and their streams. */
const descriptorsPerSandbox = 13;
const descriptorsBesides = 500;

/** These pass by themselves, and what runs goes on; under most of them new sandboxes are refused meanwhile. */
const passing: ReadonlySet<ConditionType> = new Set([
  "MEMORY_PRESSURE",
  "DISK_PRESSURE",
  "INODE_PRESSURE",
  "PID_PRESSURE",
  "STALLED",
  "CLOCK_CHANGED",
]);

/** One for each condition that holds. */
export function conditionFindings(conditions: readonly ConditionFacts[]): readonly Finding[] {
  const active = conditions.filter((one) => one.active);
  if (active.length === 0) return [ok("conditions", "no bad condition holds")];
  return active.map(({ type, message, hint }) =>
    (passing.has(type) ? warning : failed)(type.toLowerCase(), message, hint),
  );
}

/** Whether the kernel holds the totals of tenants and of the host; `problem` is what it refused. */
export function groupFinding(problem: string | undefined): Finding {
  return problem === undefined
    ? ok("tenant_cgroups", "the kernel holds the totals of tenants and of the host")
    : failed("tenant_cgroups", problem, "make room for it: nothing is started where a total does not hold");
}

/** What of the toolbox the doctor is told. */
export interface ToolboxFacts {
  version(): string | undefined;
  problem(): string | undefined;
}

/** Whether new sandboxes get the program by which processes and files are reached inside. */
export function toolboxFinding({ version, problem }: ToolboxFacts): Finding {
  const why = problem();
  return why === undefined
    ? ok("toolbox", `sandboxes get version ${version()}`)
    : failed(
        "toolbox",
        `sandboxes are made without it, and no process or file is reached inside: ${why}`,
        "install the release again, or make room in the state directory; then restart the daemon",
      );
}

/** Whether sandboxes can have networks; `problem` is what is missing, or not held. */
export function networkFinding(problem: string | undefined): Finding {
  return problem === undefined
    ? ok("networks", "sandboxes can have networks, and the kernel holds their rules")
    : warning(
        "networks",
        `sandboxes cannot have a network: ${problem}`,
        "mend it, if tenants are to have one; NETWORK_MODE_NONE needs nothing of it",
      );
}

/** What of a host's workspaces the doctor is told. */
export interface WorkspaceFacts {
  /** The backend that keeps new ones, or why there is none; undefined before it was looked for. */
  choice(): { readonly backend: { readonly kind: string } } | { readonly obstacle: string } | undefined;
  /** Names of spaces on disk that no workspace is of. */
  strangers(): Promise<readonly string[]>;
  /** What each backend lacks here. */
  probe(): Promise<readonly { readonly kind: string; readonly obstacle: string | undefined }[]>;
  /** Which backups fail; undefined if there are none. */
  backupProblems(): readonly string[] | undefined;
}

/** Whether workspaces can be kept within their limits, what by, and what keeps the other backends from it. */
export async function workspaceFinding(
  { choice, probe, strangers }: WorkspaceFacts,
  wanted: string,
): Promise<Finding> {
  const name = "workspaces";
  const now = choice();
  if (wanted === "none") return ok(name, "the configuration asks for none: [workspaces] backend");
  const lacking = (await probe()).flatMap(({ kind, obstacle }) =>
    obstacle === undefined ? [] : [`${kind}: ${obstacle}`],
  );
  if (now === undefined) return unknown(name, "it is being found out what can keep them", "check again");
  if ("backend" in now) {
    const unknownSpaces = await strangers();
    if (unknownSpaces.length > 0) {
      return warning(
        name,
        `${unknownSpaces.length} spaces on disk are of no workspace: ${unknownSpaces.slice(0, 5).join(", ")}`,
        "they are left alone; look what is in them, and remove them by hand: see docs/workspaces.md",
      );
    }
    const others = lacking.length === 0 ? "" : `; others cannot be used here: ${lacking.join("; ")}`;
    return ok(name, `kept within their limits by ${now.backend.kind}${others}`);
  }
  return warning(
    name,
    `refused: ${now.obstacle}`,
    "mount XFS or ext4 with prjquota, or btrfs, at [workspaces] directory, or give the host loop devices",
  );
}

export function backupFinding({ backupProblems }: WorkspaceFacts): Finding {
  const problems = backupProblems();
  if (problems === undefined) return ok("backups", "none are asked for: [backups]");
  const [first] = problems;
  return first === undefined
    ? ok("backups", "every workspace's newest backup succeeded, or is still to come")
    : warning(
        "backups",
        `${problems.length} workspaces are not backed up; ${first}`,
        "look at the directory or the command of [backups]; it is tried again",
      );
}

/** What the doctor is told of where sandboxes' logs are sent to. */
export interface LogForwardingFacts {
  state(): "off" | "connected" | { readonly problem: string };
}

export function logForwardingFinding({ state }: LogForwardingFacts): Finding {
  const name = "log_forwarding";
  const now = state();
  if (now === "off") return ok(name, "logs are sent nowhere: [logs.forward]");
  return now === "connected"
    ? ok(name, "the receiver of logs is connected")
    : warning(
        name,
        `the receiver of logs is not connected: ${now.problem}`,
        "look at the receiver and at [logs.forward]; what the buffer has no room for is dropped",
      );
}

export function descriptorFinding(mostSandboxes: number, limits = "/proc/self/limits"): Finding {
  const soft = /^Max open files\s+(\d+)/m.exec(readFileSync(limits, "utf8"))?.[1];
  const [has, needs] = [Number(soft ?? Infinity), descriptorsPerSandbox * mostSandboxes + descriptorsBesides];
  return has >= needs
    ? ok("descriptors", `${has} descriptors for ${mostSandboxes} sandboxes`)
    : warning(
        "descriptors",
        `${has} descriptors may be open, and ${mostSandboxes} sandboxes need ${needs}`,
        "raise LimitNOFILE= of its unit, or lower [capacity] max_sandboxes",
      );
}

/** As statfs(2) names them. */
const volatileTypes: ReadonlyMap<number, string> = new Map([
  [0x01021994, "tmpfs"],
  [0x858458f6, "ramfs"],
]);
const remoteTypes: ReadonlyMap<number, string> = new Map([
  [0x6969, "nfs"],
  [0xff534d42, "cifs"],
  [0xfe534d42, "smb2"],
  [0x65735546, "fuse"],
  [0x00c36400, "ceph"],
]);

/** Never waits longer than `patienceMs`: a dead disk may not answer. */
export async function stateFinding(directory: string, patienceMs: number): Promise<Finding> {
  const name = "state_file_system";
  let type: number;
  try {
    // the kernel's number has a sign on some machines
    type = (await within(patienceMs, statfs(directory))).type >>> 0;
  } catch (error) {
    return unknown(name, messageOf(error), `look at the disk of ${directory}`);
  }
  const [forgets, remote] = [volatileTypes.get(type), remoteTypes.get(type)];
  if (forgets !== undefined) {
    return warning(
      name,
      `${directory} is on ${forgets}, and lost with the next boot`,
      "set [state] directory to a disk",
    );
  }
  return remote === undefined
    ? ok(name, `${directory} is on a disk of this host`)
    : warning(
        name,
        `${directory} is on ${remote}, whose locks and syncs cannot be relied on`,
        "set [state] directory to a disk of this host",
      );
}

/** What HTTP health checks are made with. */
export async function probeFinding(path = process.env["PATH"] ?? ""): Promise<Finding> {
  const missing: string[] = [];
  for (const program of ["nsenter", "bash"]) {
    if (!(await isInPath(program, path))) missing.push(program);
  }
  return missing.length === 0
    ? ok("http_probe", "nsenter and bash are there for HTTP health checks")
    : warning(
        "http_probe",
        `not in PATH: ${missing.join(", ")}; every HTTP health check would fail`,
        "install util-linux and bash",
      );
}

/** Of certificates by the key that names each. */
export async function certificateFindings(
  files: Readonly<Record<string, string | undefined>>,
  nowMs: number,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const [key, file] of Object.entries(files)) {
    if (file !== undefined) findings.push(await certificateFinding(key, file, nowMs));
  }
  return findings;
}

async function certificateFinding(key: string, file: string, nowMs: number): Promise<Finding> {
  const name = "certificate";
  const hint = "renew it, then have the daemon read it: systemctl reload sandboxd";
  try {
    const endsMs = Date.parse(new X509Certificate(await readFile(file)).validTo);
    const ends = new Date(endsMs).toISOString();
    if (endsMs <= nowMs) return failed(name, `${key}: ${file} ended at ${ends}`, hint);
    return endsMs - nowMs < renewalMs
      ? warning(name, `${key}: ${file} ends at ${ends}`, hint)
      : ok(name, `${key}: ${file} is valid until ${ends}`);
  } catch (error) {
    return failed(name, `${key}: ${file} cannot be read: ${messageOf(error)}`, "see sandboxd config check");
  }
}

async function isInPath(program: string, path: string): Promise<boolean> {
  for (const directory of path.split(delimiter)) {
    try {
      await access(join(directory, program), constants.X_OK);
      return true;
    } catch {
      // the next may have it
    }
  }
  return false;
}

async function within<T>(patienceMs: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${patienceMs} ms`)), patienceMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
