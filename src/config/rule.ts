// Rules for the strings of the configuration: paths, addresses, endpoints, names, image patterns. Those that the
// contract also has are kept equal to it.

import { isIP } from "node:net";
import type { Reading, TextRule } from "./field.ts";
import { targetProblem } from "./mount-path.ts";

/** A TCP address, or the path of a unix socket. */
export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

export interface UidRange {
  readonly first: number;
  readonly last: number;
}

/** A string that matches a pattern, at most so many bytes long. */
function matching(pattern: RegExp, maxBytes: number, name: string, hint?: string): TextRule {
  return {
    name,
    read(text) {
      if (Buffer.byteLength(text) > maxBytes) return { problem: `is longer than ${maxBytes} bytes` };
      return pattern.test(text)
        ? { value: text }
        : { problem: `is not ${name}`, ...(hint === undefined ? {} : { hint }) };
    },
  };
}

/** The longest path that a unix socket's address holds: `sun_path` has 108 bytes, the last is zero (unix(7)). */
const socketPathBytes = 107;

export const absolutePath = path("an absolute path", 4095);
export const socketPath = path(`an absolute path of at most ${socketPathBytes} bytes`, socketPathBytes);

function path(name: string, maxBytes: number): TextRule {
  const rule = matching(/^\/[^\p{Cc}]*$/u, maxBytes, name, 'begin it with "/"');
  return {
    name,
    read(text) {
      if (text.split("/").includes(".."))
        return { problem: 'contains ".."', hint: "write the path without it" };
      return rule.read(text);
    },
  };
}

const directoryName = 'an absolute path without ".", empty parts and a "/" at its end, not of the kernel';

/** What a sandbox may be shown of the host: a directory by its one name. */
export const plainDirectory: TextRule = {
  name: directoryName,
  read(text) {
    const parts = text.split("/").slice(1);
    if (parts.some((part) => part === "" || part === ".")) return { problem: `is not ${directoryName}` };
    return ["proc", "sys", "dev"].includes(parts[0] ?? "")
      ? { problem: "lies in a kernel file system" }
      : absolutePath.read(text);
  },
};

/** As in the contract. */
export const mountTarget: TextRule = {
  name: "an absolute path outside /tmp, /dev, /proc, /sys and /.sandboxd",
  read(text) {
    const problem = targetProblem(text);
    return problem === undefined ? { value: text } : { problem };
  },
};

export const nfsAddress = matching(
  /^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$/,
  253,
  "the name or the address of a server",
);

/** Nothing in it is the engine's, the kernel's or a shell's to interpret. */
export const nfsExport = matching(
  /^(?!.*(\/\.\.?(\/|$)|\/\/))\/([A-Za-z0-9._/-]|\{tenant\})*$/,
  1_024,
  'an absolute path of letters, digits, ".", "_" and "-", with {tenant} for the name of the tenant',
);

/** Options that change how a server is spoken to. What may be done in the mount, is not theirs to say. */
export const nfsOption = matching(
  /^(hard|soft|vers=(3|4|4\.[012])|proto=(tcp|tcp6|rdma)|[rw]size=[1-9]\d{3,6}|timeo=[1-9]\d{0,4}|retrans=\d{1,3}|nconnect=([1-9]|1[0-6]))$/,
  32,
  "one of hard, soft, vers=, proto=, rsize=, wsize=, timeo=, retrans=, nconnect=, with its value",
  "read_only is a key of the volume; nosuid and nodev are always there",
);

export const httpPath = matching(
  /^\/[\x21-\x7e]*$/,
  1_024,
  "a path and query of visible ASCII",
  'begin it with "/"',
);

/** Any text without control characters, as in the labels of the contract. */
export const labelValue = matching(
  /^[^\p{Cc}]*$/u,
  256,
  "text of at most 256 bytes without control characters",
);

/** Keys that the daemon keeps to itself are refused. */
export const labelKey = matching(
  /^(?!sandboxd\.)[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$/,
  128,
  'letters, digits, ".", "_", "/" and "-", not beginning with "sandboxd."',
);

export const envName = matching(
  /^(?!LD_|SANDBOXD_)[A-Za-z_][A-Za-z0-9_]*$/,
  128,
  'letters, digits and "_", not beginning with "LD_" or "SANDBOXD_"',
);

export const envValue = matching(/^[^\0]*$/, 32_768, "text of at most 32768 bytes without NUL");

export const argument = matching(/^[^\0]*$/, 65_536, "text of at most 65536 bytes without NUL");

/** As in the contract. */
export const templateName = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

export const hostId = matching(
  /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/,
  63,
  'lower-case letters, digits, "." and "-", at most 63',
);

export const groupName = matching(/^[a-z_][a-z0-9_-]{0,31}$/, 32, "the name of a group");

/**
 * One component, so that either cgroup driver can hold it: "/sandboxd" is "sandboxd.slice" to systemd. It is bounded as a whole, so
 * it is none that others are in.
 */
export const cgroupName = matching(
  /^\/(?!(system|user|machine|init|docker)$)[a-z0-9_]+(-[a-z0-9_]+)*$/,
  64,
  '"/" and one name of lower-case letters, digits, "_" and single "-", not "system", "user", "machine", "init" or "docker"',
);

export const imageReference = matching(/^[A-Za-z0-9][A-Za-z0-9._/:@-]*$/, 512, "an image reference");

export const imagePattern = matching(
  /^(\*|[A-Za-z0-9][A-Za-z0-9._/:@-]*(:\*)?)$/,
  512,
  'an image reference, "name:*" for every tag of a name, or "*" for every image',
  '"*" stands alone or for a whole tag',
);

/** The kernel follows a working directory under these to other places (CVE-2024-21626). */
export const workingDirectory: TextRule = {
  name: "an absolute path outside /proc, /sys and /dev",
  read(text) {
    const isKernels = /^\/+(\.\/+)*(proc|sys|dev)(\/|$)/.test(text);
    if (isKernels) return { problem: "is under /proc, /sys or /dev" };
    return Buffer.byteLength(text) > 1024
      ? { problem: "is longer than 1024 bytes" }
      : absolutePath.read(text);
  },
};

/** Whoever may open the socket may do everything, so the rights of others are refused. */
export const socketMode: TextRule<number> = {
  name: 'a string of four octal digits without rights for others, as "0660"',
  read(text) {
    return /^0[0-7]{2}0$/.test(text)
      ? { value: Number.parseInt(text, 8) }
      : { problem: `is not ${this.name}` };
  },
};

/** The kernel's overflow uid: whatever has no owner seems to be its. */
const overflowUid = 65_534;

export const uidRange: TextRule<UidRange> = {
  name: `"first-last", each 10000 to 999999999, without ${overflowUid}`,
  read(text) {
    const [, from, to] = /^(\d{5,9})-(\d{5,9})$/.exec(text) ?? [];
    const [first, last] = [Number(from), Number(to)];
    if (from === undefined || to === undefined || first < 10_000 || last < first) {
      return { problem: "is not a range of user ids", hint: 'for example "300000-399999"' };
    }
    if (first <= overflowUid && overflowUid <= last)
      return { problem: `contains ${overflowUid}, the overflow uid` };
    return { value: { first, last } };
  },
};

/** "host:port" or "[ipv6]:port"; port 0 is any free one. Not the wildcard: sandboxes could reach that. */
export const tcpAddress: TextRule<ListenAddress> = {
  name: '"address:port" or "[IPv6 address]:port", not the wildcard',
  read: readTcp,
};

export const loopbackAddress: TextRule<ListenAddress> = {
  name: 'loopback "address:port"',
  read: readLoopback,
};

export const loopbackOrUnixAddress: TextRule<ListenAddress> = {
  name: 'loopback "address:port" or "unix:/path"',
  read(text) {
    if (!text.startsWith("unix:")) return readLoopback(text);
    const reading = socketPath.read(text.slice("unix:".length));
    return "problem" in reading ? reading : { value: { kind: "unix", path: reading.value } };
  },
};

/** A scheduler: a URL of scheme, host and port alone. */
export const endpoint: TextRule = {
  name: '"https://host:port" or "http://host:port"',
  read(text) {
    const url = /^https?:\/\/[^/?#]+$/.test(text) ? URL.parse(text) : null;
    if (url === null || url.hostname === "")
      return { problem: "is not the URL of a host", hint: `write ${this.name}, nothing after the port` };
    if (url.username !== "" || url.password !== "") {
      return {
        problem: "contains credentials",
        hint: "callers are known by their certificates: [scheduler.tls]",
      };
    }
    return { value: text };
  },
};

/** Whether a host, as an address or in a URL, is this machine itself. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}

function readLoopback(text: string): Reading<ListenAddress> {
  const reading = readTcp(text);
  if ("problem" in reading || (reading.value.kind === "tcp" && isLoopback(reading.value.host)))
    return reading;
  return { problem: "is not a loopback address", hint: "use 127.0.0.1, [::1] or localhost" };
}

function readTcp(text: string): Reading<ListenAddress> {
  const [, six, name, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = six ?? name;
  const port = Number(digits);
  const isHost = six === undefined ? host !== undefined && isName(host) : isIP(six) === 6;
  if (host === undefined || !isHost || port > 65_535) {
    return { problem: "is not an address and a port", hint: 'for example "127.0.0.1:7070" or "[::1]:7070"' };
  }
  if (host === "0.0.0.0" || (six !== undefined && /^[0:.]+$/.test(six))) {
    return {
      problem: "is the wildcard address, which sandboxes could reach",
      hint: "name the address of the network that the callers are in",
    };
  }
  return { value: { kind: "tcp", host, port } };
}

function isName(host: string): boolean {
  if (/^[\d.]+$/.test(host)) return isIP(host) === 4;
  return /^(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*$/.test(host);
}
