// Kills the processes that a command run in a container has started, by their ids on the host.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cgroupPathsOf } from "./cgroup-path.ts";

export interface StartedBy {
  /** The command's first process, which leads a session of its own. On the host. */
  readonly leader: number;
  /** Any process of the container that lives, on the host. */
  readonly containerPid: number;
  readonly containerId: string;
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
}

/** A process may fork while its siblings are killed, so it is looked again. */
const rounds = 10;
const betweenRoundsMs = 10;

/**
 * Kills everything in the container that is in the leader's session or descends from it, until none is left or it was tried
 * often. What has left both (a daemon, by two forks and a session of its own) belongs to the sandbox like any other process.
 */
export async function killStartedBy(started: StartedBy): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    if (killOnce(started) === 0) return;
    await sleep(betweenRoundsMs);
  }
}

/** How many were there. In one turn of the event loop, so that an id is checked right before it is used. */
function killOnce({ leader, containerPid, containerId }: StartedBy): number {
  const members = unlessGone(() => membersOf(containerPid, containerId)) ?? [];
  const found = startedBy(leader, members);
  for (const pid of found) {
    unlessGone(() => {
      // an id can have gone to a process of the host meanwhile: what is not in the container is not touched
      cgroupPathsOf(pid, { containerId });
      process.kill(pid, "SIGKILL");
    });
  }
  return found.length;
}

/** Of the processes of a container, the leader, its session, and what descends from any of these. */
export function startedBy(leader: number, members: readonly Process[]): readonly number[] {
  const found = new Set<number>();
  let size = -1;
  while (size !== found.size) {
    size = found.size;
    for (const { pid, parent, session } of members) {
      if (pid === leader || session === leader || found.has(parent)) found.add(pid);
    }
  }
  return [...found];
}

function membersOf(containerPid: number, containerId: string): readonly Process[] {
  const { pids } = cgroupPathsOf(containerPid, { containerId });
  const members = readFileSync(join(pids, "cgroup.procs"), "latin1").split("\n").filter(Boolean);
  return members.flatMap((pid) => {
    const stat = unlessGone(() => readFileSync(`/proc/${pid}/stat`, "latin1"));
    return stat === undefined ? [] : [processOf(Number(pid), stat)];
  });
}

/** Of /proc/PID/stat (proc(5)): the name is in brackets and can hold anything, brackets too. */
export function processOf(pid: number, stat: string): Process {
  const [, parent, , session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { pid, parent: Number(parent), session: Number(session) };
}

/** A process that has ended, or whose id is another's now, is no failure. */
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
