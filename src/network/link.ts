// Finds the two ends of a sandbox's pair of interfaces: the one inside, and the one on the host. By number and MAC, in a namespace that is
// held: process ids are reused, and a bound that ends up on another interface, of the host even, would cut that one off.

import { closeSync, fstatSync, openSync, readFileSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";

/** What the engine calls the one interface of a container. */
export const insideName = "eth0";

/** From include/uapi/linux/magic.h. */
const sysfsMagic = 0x62656572;

export interface OwnInterface {
  readonly mac: string;
  /** The number of its other end, in whichever namespace that is. */
  readonly otherEnd: number;
}

/**
 * As a process's own /sys shows it, which the runtime mounted in the process's network namespace: nothing else of a container is
 * believed. Undefined if it has no such interface there. @throws what reading throws, if the process has ended.
 */
export function ownInterface(pid: number, procRoot = "/proc"): OwnInterface | undefined {
  const sys = join(procRoot, String(pid), "root/sys");
  if (statfsSync(sys).type !== sysfsMagic) return undefined;
  const read = (name: string) => readFileSync(join(sys, "class/net", insideName, name), "latin1").trim();
  try {
    return { mac: read("address"), otherEnd: Number(read("iflink")) };
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** A network namespace that stays what it is while it is held. */
export interface HeldNamespace {
  /** What goes before a program that is to run in it. */
  readonly enter: readonly string[];
  /** Whether the process that it was opened by is still in it. */
  isStill(): boolean;
  close(): void;
}

/** Undefined if the process has ended. @throws Error if it is in the network namespace of the daemon. */
export function holdNamespace(pid: number): HeldNamespace | undefined {
  const file = `/proc/${pid}/ns/net`;
  const descriptor = orUndefined(() => openSync(file, "r"));
  if (descriptor === undefined) return undefined;
  const { ino, dev } = fstatSync(descriptor);
  const isAt = (path: string) => {
    const found = orUndefined(() => statSync(path));
    return found?.ino === ino && found.dev === dev;
  };
  if (isAt("/proc/self/ns/net")) {
    closeSync(descriptor);
    throw new Error(`process ${pid} is in the network namespace of the daemon`);
  }
  return {
    enter: ["nsenter", `--net=/proc/${process.pid}/fd/${descriptor}`, "--"],
    isStill: () => isAt(file),
    close: () => closeSync(descriptor),
  };
}

function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
