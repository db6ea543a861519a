// What the kernel said inside of a sandbox, as an error of the catalogue. The words come from there, so they are shown with care.

import { constants } from "node:os";
import { invalidField, type Reason, SandboxdError } from "../errors.ts";
import { reader } from "../toolbox/protocol.ts";
import { printable } from "../workspace/archive/names.ts";

/** What an ERROR frame says. */
export interface Told {
  /** As "ENOENT". */
  readonly errno: string;
  /** Of the toolbox: `open`, `etag`, … */
  readonly operation: string;
  readonly path: Buffer;
}

/** What the request was about. */
export interface Subject {
  readonly path: string;
  /** Whether what is there already must not be replaced. */
  readonly createsOnly?: boolean;
}

const mostPathShown = 512;

/** Names by number; EAGAIN and EOPNOTSUPP have a second one, which nobody says. */
const errnos: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .filter(([name]) => name !== "EWOULDBLOCK" && name !== "ENOTSUP")
    .map(([name, number]) => [number, name]),
);

export function toldOf(payload: Buffer): Told {
  const told = reader(payload);
  const errno = told.u32();
  return {
    errno: errnos.get(errno) ?? `errno ${errno}`,
    operation: printable(told.str(), 32),
    path: told.bytes(),
  };
}

interface Meaning {
  readonly reason: Reason;
  readonly what: string;
  readonly hint?: string;
}

const missing: Meaning = { reason: "FILE_NOT_FOUND", what: "there is nothing" };
const there: Meaning = { reason: "FILE_ALREADY_EXISTS", what: "there is something already" };
const forbidden: Meaning = {
  reason: "FILE_NOT_ALLOWED",
  what: "the sandbox's user may not",
  hint: "it is not the user's, or its mode does not allow it",
};
const full: Meaning = { reason: "FILE_NO_SPACE", what: "no space is left there" };
const notEmpty: Meaning = {
  reason: "DIRECTORY_NOT_EMPTY",
  what: "the directory has something in it",
  hint: "remove it with recursive",
};
const wrongType = (what: string): Meaning => ({ reason: "FILE_WRONG_TYPE", what });

const meanings: Readonly<Record<string, Meaning>> = {
  ENOENT: missing,
  EEXIST: there,
  EACCES: forbidden,
  EPERM: forbidden,
  EROFS: { reason: "FILE_READ_ONLY", what: "the file system is read-only there" },
  ENOTDIR: wrongType("it, or what leads to it, is no directory"),
  EISDIR: wrongType("it is a directory"),
  EXDEV: wrongType("the new path is on another file system"),
  ENXIO: wrongType("it is no regular file"),
  ENODEV: wrongType("it is no regular file"),
  EBUSY: wrongType("a file system is mounted there"),
  ETXTBSY: wrongType("it is a program that runs"),
  ENOTEMPTY: notEmpty,
  ENOSPC: full,
  EDQUOT: { ...full, what: "the quota is used up there" },
  EFBIG: { ...full, what: "the file would be larger than one can be there" },
};

/** What an errno means only where the toolbox did one certain thing: "operation errno". */
const special: Readonly<Record<string, Meaning>> = {
  "type EINVAL": wrongType("it is no regular file"),
  "etag ESTALE": {
    reason: "FILE_CHANGED",
    what: "its etag is not the one given",
    hint: "read it again, and decide anew",
  },
  "watch ENOSPC": {
    reason: "FILE_NO_SPACE",
    what: "no more directories can be watched",
    hint: "8,192 directories can be in one watch, and the host bounds the watches of a user",
  },
  "fork EAGAIN": {
    reason: "PROCESS_LIMIT_REACHED",
    what: "the sandbox is at its pids limit",
    hint: "end processes in it, or give it more pids",
  },
  "fork ENOMEM": { reason: "PROCESS_LIMIT_REACHED", what: "the sandbox has no memory for another process" },
  "lock EAGAIN": {
    reason: "FILE_FAILED",
    what: "another program holds the lock of its directory",
    hint: "flock(2) on the directory was waited for 30 s",
  },
};

const fieldProblems: Readonly<Record<string, readonly [field: string, description: string]>> = {
  ELOOP: ["path", "leads through too many symbolic links"],
  ENAMETOOLONG: ["path", "has a name that is too long"],
  EILSEQ: ["path", "has a name that the file system there cannot have"],
};

export function fileError(told: Told, subject: Subject): SandboxdError {
  const { errno, operation } = told;
  if (errno === "EPROTO" || errno === "EPROTONOSUPPORT")
    return new SandboxdError(
      "TOOLBOX_UNAVAILABLE",
      "the toolbox inside of the sandbox is of another release",
      {
        hint: "restart the sandbox",
      },
    );
  if (`${operation} ${errno}` === "rename EINVAL") return invalidField("new_path", "is below path");
  if (`${operation} ${errno}` === "size EINVAL")
    return invalidField("size_bytes", "is not how many bytes came");
  const problem = fieldProblems[errno];
  if (problem !== undefined) return invalidField(...problem);
  const path = shownPath(told, subject);
  const { reason, what, hint } = meaningOf(told, subject);
  return new SandboxdError(reason, `"${path}": ${what} (${operation}: ${errno})`, {
    metadata: { path, errno, operation },
    ...(hint === undefined ? {} : { hint }),
  });
}

function meaningOf({ errno, operation }: Told, { createsOnly = true }: Subject): Meaning {
  // a directory that is to be replaced by another
  if (errno === "EEXIST" && !createsOnly) return notEmpty;
  return (
    special[`${operation} ${errno}`] ??
    meanings[errno] ?? { reason: "FILE_FAILED", what: "the kernel refused it" }
  );
}

function shownPath({ path }: Told, subject: Subject): string {
  const told = path.toString("utf8");
  return printable(told === "" ? subject.path : told, mostPathShown);
}
