// Gives up root for a tenant's user, for good, and believes only what the kernel then says of it.

import { readFileSync } from "node:fs";

/** A process without any of root's powers left, or an error. Group and user have the same number. */
export function becomeUser(uid: number): void {
  if (!Number.isSafeInteger(uid) || uid < 1 || uid > 0x7fff_ffff)
    throw new Error(`no user id of a tenant: ${uid}`);
  if (process.setgroups === undefined || process.setgid === undefined || process.setuid === undefined)
    throw new Error("this system has no user ids");
  process.setgroups([]);
  process.setgid(uid);
  process.setuid(uid);
  assertIs(uid);
  try {
    process.setuid(0);
  } catch {
    return;
  }
  throw new Error("root could be had again");
}

/** Real, effective, saved and that for files; see proc_pid_status(5). */
function assertIs(uid: number): void {
  const status = readFileSync("/proc/self/status", "latin1");
  const kernelSays = (key: string) => new RegExp(`^${key}:[ \\t]*(.*?)[ \\t]*$`, "m").exec(status)?.[1];
  const four = Array(4).fill(uid).join("\t");
  const wanted = {
    Uid: four,
    Gid: four,
    Groups: "",
    CapPrm: "0".repeat(16),
    CapEff: "0".repeat(16),
    CapAmb: "0".repeat(16),
  };
  for (const [key, value] of Object.entries(wanted))
    if (kernelSays(key) !== value) throw new Error(`${key} is ${kernelSays(key)} and must be ${value}`);
}
