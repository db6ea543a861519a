// The probe, from its sources to its findings: run in a container that is made from a plan by the code that makes sandboxes,
// and once more unconfined, which tells the refusals that are the sandbox's merit.

import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type Docker from "dockerode";
import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import { findMismatches, limitWarnings } from "../../src/engine/verify.ts";
import { create, importImage, planFor } from "./container.ts";

const run = promisify(execFile);

interface Check {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

type Checks = ReadonlyMap<string, Check>;

export interface Findings {
  readonly plan: ContainerPlan;
  /** Of the engine's answer to the create call, those about limits. */
  readonly warnings: readonly string[];
  /** Fields in which the container is not what was planned. */
  readonly mismatches: readonly unknown[];
  readonly mounts: readonly unknown[];
  readonly appArmorProfile: string;
  /** From inside of the container. */
  readonly inside: Checks;
  /** Without any confinement: the calls that the kernel itself would let through. */
  readonly outside: Checks;
}

export interface BatteryOptions {
  readonly engine: Docker;
  /** The program, from buildProbe. */
  readonly probe: string;
  readonly directory: string;
  /** Of the image and the container. */
  readonly name: string;
  /** The disk to throttle; none if left out. */
  readonly device?: string;
  /** Runs the probe with `--control`, unconfined and as root, on the engine's machine; returns what it printed. */
  readonly control: () => Promise<string>;
  /** Called while the container runs, with the process id of its first process. */
  readonly onRunning?: (plan: ContainerPlan, containerId: string, pid: number) => void;
}

const sources = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(".c"))
  .map((file) => join(import.meta.dirname, file));

/** Why the probe can't be built here, if so. */
export async function probeObstacle(): Promise<string | undefined> {
  const hasCompiler = await run("gcc", ["--version"]).then(
    () => true,
    () => false,
  );
  return hasCompiler ? undefined : "there is no gcc to build the probe with";
}

/** Compiles the probe, without any library that a machine may lack. Returns its path. */
export async function buildProbe(directory: string): Promise<string> {
  const probe = join(directory, "probe");
  await run("gcc", ["-D_GNU_SOURCE", "-static", "-O1", "-o", probe, ...sources]);
  return probe;
}

/** Runs the probe both ways. Its container and image stay: removeBattery. */
export async function runBattery(options: BatteryOptions): Promise<Findings> {
  const { engine, probe, directory, name, device, onRunning } = options;
  const outside = parseChecks(await options.control());
  const plan = await planFor(engine, name, await importImage(engine, probe, directory, name), device);
  const answer = await create(engine, plan);
  const container = engine.getContainer(answer.Id);
  const created = await container.inspect();
  await container.start();
  const started = await container.inspect();
  onRunning?.(plan, container.id, started.State.Pid);
  // the probe waits for this, so that its limits could be read while it lives
  await container.kill({ signal: "SIGUSR1" });
  await container.wait();
  const logs = (await container.logs({ stdout: true, stderr: true, follow: false })) as Buffer;
  return {
    plan,
    warnings: limitWarnings(answer.Warnings),
    mismatches: findMismatches(plan, created),
    mounts: created.Mounts,
    appArmorProfile: started.AppArmorProfile,
    inside: parseChecks(plainOutput(logs)),
    outside,
  };
}

/** Removes what runBattery left in the engine; absent is success. */
export async function removeBattery(engine: Docker, name: string): Promise<void> {
  await engine.getContainer(name).remove({ force: true }).catch(ignoreAbsent);
  await engine.getImage(`${name}:latest`).remove({ force: true }).catch(ignoreAbsent);
}

/** Calls that every supported kernel has: where the control is refused one of these, it runs confined itself. */
export const essentialControls = [
  "15.unshare-mount",
  "15.mount",
  "15.setns",
  "15.clone-newnet",
  "15.pivot_root",
  "16.inet-raw",
  "16.inet-raw-high-bits",
  "17.FS_IOC_SETFLAGS-high-bit",
  "17.TIOCSTI-high-bit",
] as const;

/** The names that the probe's sources hold, so that a check that never ran is missed. */
export function expectedChecks(): readonly string[] {
  const text = sources.map((file) => readFileSync(file, "utf8")).join("\n");
  const literal = [...text.matchAll(/"((?:\d+|works)\.[A-Za-z][A-Za-z0-9_.-]*)"/g)].flatMap(
    ([, check]) => check ?? [],
  );
  const generated = [
    "17.FS_IOC_FSSETXATTR-high-bit",
    "13.inodes/tmp",
    "13.bytes/volume",
    "13.bytes/dev/shm",
    "22.169.254.169.254",
  ];
  const isNative = (check: string) => process.arch === "x64" || !/^18\.|iopl|ioperm|modify_ldt/.test(check);
  return [...new Set([...literal, ...generated])].filter(isNative);
}

export function parseChecks(output: string): Checks {
  const checks = output
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Check);
  return new Map(checks.map((check) => [check.check, check]));
}

/** The engine frames output in packets of eight bytes of header and a length; only the bodies matter here. */
export function plainOutput(framed: Buffer): string {
  const bodies: Buffer[] = [];
  for (let at = 0; at < framed.length; ) {
    const end = at + 8 + framed.readUInt32BE(at + 4);
    bodies.push(framed.subarray(at + 8, end));
    at = end;
  }
  return Buffer.concat(bodies).toString("utf8");
}

function ignoreAbsent(error: unknown): void {
  if ((error as { readonly statusCode?: number }).statusCode !== 404) throw error;
}
