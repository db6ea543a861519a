// The file systems that the daemon cares for: room left on them, and traffic of the devices below.
import { readFile, stat, statfs } from "node:fs/promises";
import { nextLine, nextWord, numberAt } from "./bytes.ts";

/** One directory's file system. */
export interface HostDisk {
  readonly path: string;
  /** Absent until the file system has answered. Kept from the last answer while it doesn't. */
  readonly space?: DiskSpace;
  /** Why the last look at the file system failed, in the system's words. Absent when it didn't. */
  readonly problem?: string;
  /** Absent where no block device of its own is below (tmpfs, network file systems). */
  readonly device?: DeviceTraffic;
}

export interface DiskSpace {
  /** Unit: bytes. */
  readonly totalBytes: number;
  /** Free for unprivileged use. Unit: bytes. */
  readonly availableBytes: number;
  /** 0 where the file system doesn't count inodes. */
  readonly totalInodes: number;
  readonly availableInodes: number;
  /** When the file system answered. Unit: milliseconds of the monotonic clock. */
  readonly monotonicMs: number;
}

/** What the block device did, for whomever. */
export interface DeviceTraffic {
  /** Unit: bytes; rising. */
  readonly readBytes: number;
  /** Unit: bytes; rising. */
  readonly writeBytes: number;
  /** Rising. */
  readonly readOperations: number;
  /** Rising. */
  readonly writeOperations: number;
  /** Time with anything in flight. Unit: milliseconds; rising. */
  readonly busyMs: number;
}

interface Device {
  readonly major: number;
  readonly minor: number;
}

/**
 * Looks at one directory's file system without ever waiting for it on the event loop: a dead disk or server may
 * never answer, so at most one question is open at a time and the last answer is what counts.
 */
export interface DiskProbe {
  /** Asks again unless an answer is outstanding. Resolves when one has come; never rejects. */
  refresh(): Promise<void>;
  /** What is known now, with the traffic found in the contents of /proc/diskstats. */
  current(diskstats: Uint8Array, end: number): HostDisk;
}

/** `mountinfo` is the path of a mount table, by which a device is found where stat() names none (btrfs, overlay). */
export function createDiskProbe(path: string, mountinfo: string, monotonicMs: () => number): DiskProbe {
  let space: DiskSpace | undefined;
  let problem: string | undefined;
  let devices: readonly Device[] = [];
  let asked: Promise<void> | undefined;

  async function ask(): Promise<void> {
    try {
      if (devices.length === 0) {
        devices = await devicesBelow(path, mountinfo);
      }
      const { bsize, blocks, bavail, files, ffree } = await statfs(path);
      space = {
        totalBytes: blocks * bsize,
        availableBytes: bavail * bsize,
        totalInodes: files,
        availableInodes: ffree,
        monotonicMs: monotonicMs(),
      };
      problem = undefined;
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    } finally {
      asked = undefined;
    }
  }

  return {
    refresh() {
      asked ??= ask();
      return asked;
    },
    current(diskstats, end) {
      const device = trafficOf(devices, diskstats, end);
      return {
        path,
        ...(space === undefined ? undefined : { space }),
        ...(problem === undefined ? undefined : { problem }),
        ...(device === undefined ? undefined : { device }),
      };
    },
  };
}

/** Candidates, the likeliest first: what stat() says, then what the mount table says is mounted there. */
async function devicesBelow(path: string, mountinfo: string): Promise<readonly Device[]> {
  const { dev } = await stat(path);
  const own = deviceOf(dev);
  const source = sourceOf(await readFile(mountinfo, "utf8"), own);
  return source === undefined ? [own] : [own, deviceOf((await stat(source)).rdev)];
}

/** Takes a device number apart as glibc's major() and minor() do. */
export function deviceOf(number: number): Device {
  const high = Math.floor(number / 2 ** 32);
  const low = number % 2 ** 32;
  return {
    major: (high & 0xffff_f000) | ((low >>> 8) & 0xfff),
    minor: ((low >>> 12) & 0xffff_ff00) | (low & 0xff),
  };
}

/** The device file named as the source of the mount with this device number, if it is one. */
function sourceOf(mountinfo: string, { major, minor }: Device): string | undefined {
  for (const line of mountinfo.split("\n")) {
    const [mount = "", rest = ""] = line.split(" - ");
    const source = rest.split(" ")[1];
    if (mount.split(" ")[2] === `${major}:${minor}` && source?.startsWith("/dev/")) {
      return source;
    }
  }
  return undefined;
}

const sectorBytes = 512;

/** Traffic of the first candidate that /proc/diskstats knows. */
function trafficOf(devices: readonly Device[], bytes: Uint8Array, end: number): DeviceTraffic | undefined {
  for (const device of devices) {
    for (let line = 0; line < end; line = nextLine(bytes, line, end)) {
      const start = bytes[line] === 32 ? nextWord(bytes, line, end) : line;
      const minorAt = nextWord(bytes, start, end);
      if (numberAt(bytes, start, end) === device.major && numberAt(bytes, minorAt, end) === device.minor) {
        return trafficAt(bytes, nextWord(bytes, nextWord(bytes, minorAt, end), end), end);
      }
    }
  }
  return undefined;
}

/** Reads the columns after the device's name, as Documentation/admin-guide/iostats.rst numbers them. */
function trafficAt(bytes: Uint8Array, from: number, end: number): DeviceTraffic {
  const columns: number[] = [];
  for (let at = from; columns.length < 10; at = nextWord(bytes, at, end)) {
    columns.push(numberAt(bytes, at, end));
  }
  const [reads = 0, , sectorsRead = 0, , writes = 0, , sectorsWritten = 0, , , busyMs = 0] = columns;
  return {
    readBytes: sectorsRead * sectorBytes,
    writeBytes: sectorsWritten * sectorBytes,
    readOperations: reads,
    writeOperations: writes,
    busyMs,
  };
}
