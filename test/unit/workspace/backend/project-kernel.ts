// A host with project quotas, as far as a backend sees it: a real directory, and programs that are played, with what a kernel would
// hold for xfs_quota.

import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Space } from "../../../../src/workspace/backend/backend.ts";
import type { Home } from "../../../../src/workspace/backend/home.ts";
import { type RunTool, ToolError } from "../../../../src/workspace/backend/tool.ts";

interface Project {
  kib: number;
  inodes: number;
  readonly folders: Set<string>;
}

/** Said of a call before or after it is done; throwing makes it fail. */
export type Interference = (call: { readonly program: string; readonly index: number }) => void;

export interface PlayedHost {
  readonly home: Home;
  readonly run: RunTool;
  /** What the programs were called with. */
  readonly calls: string[];
  readonly projects: ReadonlyMap<number, Project>;
  isEnforced: boolean;
  /** Takes a limit without a word, and holds another. */
  heldKib: number | undefined;
  /** Does not put folders into projects, without a word. */
  ignoresFolders: boolean;
  before: Interference;
  after: Interference;
  /** Printed in place of what a program prints. */
  says: string | undefined;
  /** What is found of other users. */
  foreign: string;
  /** In a folder, below its directory. */
  tree(): readonly string[];
  close(): void;
}

export function playHost(): PlayedHost {
  const directory = mkdtempSync(join(tmpdir(), "projects-"));
  const projects = new Map<number, Project>();
  const folderOf = (name: string) => join(directory, "spaces", name);
  mkdirSync(join(directory, "spaces"));

  const projectOf = (id: number): Project => {
    const found = projects.get(id) ?? { kib: 0, inodes: 0, folders: new Set() };
    projects.set(id, found);
    return found;
  };

  /** Files are counted by their size, as real file systems differ. */
  function used(path: string): { readonly kib: number; readonly inodes: number } {
    if (!existsSync(path)) return { kib: 0, inodes: 0 };
    const own = { kib: 0, inodes: 1 };
    const found = lstatSync(path);
    if (!found.isDirectory()) return { kib: Math.ceil(found.size / 1_024), inodes: 1 };
    for (const name of readdirSync(path)) {
      const one = used(join(path, name));
      own.kib += one.kib;
      own.inodes += one.inodes;
    }
    return own;
  }

  function reported(id: number): string {
    const project = projects.get(id);
    const sum = { kib: 0, inodes: 0 };
    for (const folder of project?.folders ?? []) {
      const one = used(folder);
      sum.kib += one.kib;
      sum.inodes += one.inodes;
    }
    const { kib, inodes } = project ?? { kib: 0, inodes: 0 };
    if (kib + inodes + sum.inodes === 0) {
      projects.delete(id);
      return "\n";
    }
    return `#${id}  ${sum.kib}  0  ${kib}  00 [--------]  ${sum.inodes}  0  ${inodes}  00 [--none--]\n\n`;
  }

  function command(host: PlayedHost, text: string): string {
    const limit = /^limit -p bhard=(\d+)k? ihard=(\d+) (\d+)$/.exec(text)?.slice(1).map(Number);
    if (limit !== undefined) {
      const [kib = 0, inodes = 0, id = 0] = limit;
      Object.assign(projectOf(id), { kib: kib > 0 ? (host.heldKib ?? kib) : 0, inodes });
      return "";
    }
    if (text === "state -p") {
      const is = host.isEnforced ? "ON" : "OFF";
      return `Project quota state on ${directory} (/dev/sda)\n  Accounting: ON\n  Enforcement: ${is}\n`;
    }
    const asked = /^report -p -n -N -b -i -L (\d+) -U \1$/.exec(text)?.[1];
    if (asked !== undefined) return reported(Number(asked));
    const [, verb, folder = "", id] = /^project -([sc]) -d 0 -p (\S+) (\d+)$/.exec(text) ?? [];
    if (verb === "s" && !host.ignoresFolders) projectOf(Number(id)).folders.add(folder);
    if (verb === "c") {
      const isIn = projects.get(Number(id))?.folders.has(folder) === true;
      const wrong = isIn ? "" : `${folder} - project identifier is not set (inode=0, tree=${id})\n`;
      return `Checking project ${id} (path ${folder})...\n${wrong}Processed 1 paths\n`;
    }
    if (verb === "s") return `Setting up project ${id} (path ${folder})...\n`;
    throw new Error(`nobody plays: ${text}`);
  }

  /** Does what the program does. */
  function play(host: PlayedHost, program: string, args: readonly string[]): string {
    if (program === "xfs_quota") {
      return args
        .filter((_, index) => args[index - 1] === "-c")
        .map((one) => command(host, one))
        .join("");
    }
    if (program === "setpriv") cpSync(String(args.at(-2)), String(args.at(-1)), { recursive: true });
    if (program === "rm") {
      for (const path of args.slice(args.indexOf("--") + 1)) rmSync(path, { recursive: true, force: true });
    }
    return program === "find" ? host.foreign : "";
  }

  const host: PlayedHost = {
    home: {
      directory,
      folderOf,
      contentOf: (name) => join(folderOf(name), "data"),
      names: async () => readdirSync(join(directory, "spaces")),
      async own(name) {
        const path = join(directory, name);
        mkdirSync(path, { recursive: true });
        return path;
      },
      close: async () => {},
    },
    async run(program, args) {
      const call = { program, index: host.calls.length + 1 };
      host.calls.push([program, ...args].join(" "));
      host.before(call);
      const output = host.says ?? play(host, program, args);
      host.after(call);
      return output;
    },
    calls: [],
    projects,
    isEnforced: true,
    heldKib: undefined,
    ignoresFolders: false,
    before: () => {},
    after: () => {},
    says: undefined,
    foreign: "",
    tree: () =>
      readdirSync(directory, { recursive: true, encoding: "utf8" })
        .filter((name) => name.includes("/"))
        .sort(),
    close: () => rmSync(directory, { recursive: true, force: true }),
  };
  return host;
}

/** Of a tenant: only root can make it. */
export const space = (limits: Partial<Space["limits"]> = {}): Space => ({
  name: "one",
  uid: 20_000,
  projectId: 7,
  limits: { bytes: 1_048_576, inodes: 100, ...limits },
});

/** As a program is that the kernel holds, and that is killed for it. */
export function fails(): never {
  throw new ToolError("xfs_quota", 1, "the disk is on fire");
}
