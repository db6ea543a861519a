// Opens what /proc tells of a container's network, through one of its processes.

import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type CgroupPlace, cgroupPathsAt, cgroupPathsOf } from "./cgroup-path.ts";

/** What lies below /proc/PID and is the same for every process of a network namespace. */
export type NetworkFile = "ns/net" | "net/tcp" | "net/tcp6";

const mostMembers = 16;

/**
 * A descriptor of the file, which the caller closes; undefined if the container has no process (any more), or the kernel no
 * such file. Process ids are reused, so what was opened counts only if its process is in the container's cgroup *after* that:
 * the descriptor itself stays with its namespace whatever becomes of the process.
 */
export function openNetworkFile(place: CgroupPlace, file: NetworkFile): number | undefined {
  const { pids } = cgroupPathsAt(place);
  const members = orUndefined(() => readFileSync(join(pids, "cgroup.procs"), "latin1")) ?? "";
  for (const member of members.split("\n").filter(Boolean).slice(0, mostMembers)) {
    const descriptor = orUndefined(() => openOf(member, file));
    if (descriptor === undefined) continue;
    if (orUndefined(() => cgroupPathsOf(Number(member), place)) !== undefined) return descriptor;
    closeSync(descriptor);
  }
  return undefined;
}

/** A process of the container that is in its network namespace; undefined if there is none (any more). */
export function networkMember(place: CgroupPlace): number | undefined {
  const pid = memberWithNetwork(cgroupPathsAt(place).pids);
  return pid !== undefined && orUndefined(() => cgroupPathsOf(pid, place)) !== undefined ? pid : undefined;
}

/** A process in a cgroup that has not this one's network namespace. */
export function memberWithNetwork(cgroup: string): number | undefined {
  const members = orUndefined(() => readFileSync(join(cgroup, "cgroup.procs"), "latin1")) ?? "";
  return members
    .split("\n")
    .filter(Boolean)
    .slice(0, mostMembers)
    .map(Number)
    .find((pid) => orUndefined(() => namespaceOf(`${pid}`) !== namespaceOf("self")));
}

function openOf(pid: string, file: NetworkFile): number | undefined {
  // a command that is just being started in a container is in its cgroup before it is in its namespaces
  return namespaceOf(pid) === namespaceOf("self") ? undefined : openSync(`/proc/${pid}/${file}`, "r");
}

const namespaceOf = (pid: string): number => statSync(`/proc/${pid}/ns/net`).ino;

/** A process that has ended, or is another's now, is no failure: the next one is looked at. */
function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
