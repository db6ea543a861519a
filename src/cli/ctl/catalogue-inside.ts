// Commands about the inside of a sandbox: processes, files and ports.

import type { OptionSpecs } from "./arguments.ts";
import { anyNumber, type CommandSpec } from "./command-spec.ts";
import { listOptions } from "./output.ts";

const processes = "Processes";
const files = "Files";
const ports = "Ports";

const starting = {
  env: { kind: "list", short: "e", value: "K=V", help: "Environment; K alone takes the value from here" },
  workdir: { kind: "value", short: "w", value: "DIR", help: "Where it starts; default: the sandbox's" },
  timeout: { kind: "value", value: "TIME", help: "End it after that, as 30s; default: never" },
  id: { kind: "value", value: "ID", help: "Id of the process; default: one is made" },
  "detach-keys": { kind: "value", value: "KEYS", help: "Keys that leave it running; default: ctrl-p,ctrl-q" },
} as const satisfies OptionSpecs;

export const insideCommands: Readonly<Record<string, CommandSpec>> = {
  exec: {
    group: processes,
    usage: "[OPTIONS] SANDBOX COMMAND [ARG...]",
    summary: "Run a command in a sandbox, and end with its exit code",
    details:
      "Without a terminal, signals are passed on. A connection that breaks is made again for 30 s, and no byte is lost meanwhile.",
    options: {
      interactive: { kind: "flag", short: "i", help: "Pass standard input on" },
      tty: { kind: "flag", short: "t", help: "Give it a terminal" },
      detach: { kind: "flag", short: "d", help: "Print the id of the process, and leave it running" },
      ...starting,
    },
    words: [2, anyNumber],
    interspersed: false,
    failureCode: 125,
    load: async () => (await import("./commands/exec.ts")).exec,
  },
  shell: {
    group: processes,
    usage: "[OPTIONS] SANDBOX",
    summary: "Open a shell in a sandbox",
    options: starting,
    words: [1, 1],
    failureCode: 125,
    load: async () => (await import("./commands/shell.ts")).shell,
  },
  attach: {
    group: processes,
    usage: "[OPTIONS] SANDBOX PROCESS",
    summary: "Take up a process that runs: what it wrote, its input, its terminal",
    options: {
      "no-stdin": { kind: "flag", help: "Only look" },
      "detach-keys": starting["detach-keys"],
    },
    words: [2, 2],
    failureCode: 125,
    load: async () => (await import("./commands/attach.ts")).attach,
  },
  processes: {
    group: processes,
    usage: "[OPTIONS] SANDBOX",
    summary: "List processes that were started by exec, shell or the API",
    options: { ...listOptions, "no-trunc": { kind: "flag", help: "Show commands whole" } },
    words: [1, 1],
    load: async () => (await import("./commands/processes.ts")).processes,
  },
  top: {
    group: processes,
    usage: "[OPTIONS] SANDBOX",
    summary: "List all processes of a sandbox, as its kernel sees them",
    options: { output: listOptions.output, "no-trunc": { kind: "flag", help: "Show commands whole" } },
    words: [1, 1],
    load: async () => (await import("./commands/processes.ts")).top,
  },
  kill: {
    group: processes,
    usage: "[OPTIONS] SANDBOX PROCESS",
    summary: "Send a signal to a process that was started by exec, shell or the API",
    options: {
      signal: { kind: "value", short: "s", value: "SIGNAL", help: "Name or number; default: KILL" },
      scope: { kind: "value", value: "process|group|tree", help: "Who gets it; default: group" },
    },
    words: [2, 2],
    load: async () => (await import("./commands/kill.ts")).kill,
  },
  cp: {
    group: files,
    usage: "[OPTIONS] SANDBOX:SRC DST|-  or  SRC|- SANDBOX:DST",
    summary: "Copy files and directories out of a sandbox or into one",
    details:
      'As docker cp: a directory is copied into one that is there, and as DST otherwise; "SRC/." copies what is in it.\n"-" is a tar archive on standard output or input.',
    options: {
      "follow-link": { kind: "flag", short: "L", help: "Copy what a symbolic link at SRC leads to" },
      quiet: { kind: "flag", short: "q", help: "Do not tell what was copied" },
    },
    words: [2, 2],
    load: async () => (await import("./commands/cp.ts")).cp,
  },
  ls: {
    group: files,
    usage: "[OPTIONS] SANDBOX:PATH",
    summary: "List a directory of a sandbox",
    options: listOptions,
    words: [1, 1],
    load: async () => (await import("./commands/files.ts")).ls,
  },
  cat: {
    group: files,
    usage: "SANDBOX:PATH",
    summary: "Print a file of a sandbox",
    options: {},
    words: [1, 1],
    load: async () => (await import("./commands/files.ts")).cat,
  },
  forward: {
    group: ports,
    usage: "[OPTIONS] SANDBOX [LOCAL:]PORT...",
    summary: "Carry connections to ports here to ports of a sandbox, until interrupted",
    details: 'LOCAL is the same port if it is left out, and any that is free if it is empty: ":8080".',
    options: {
      address: { kind: "value", value: "ADDRESS", help: "Where to listen; default: 127.0.0.1" },
    },
    words: [2, anyNumber],
    load: async () => (await import("./commands/forward.ts")).forward,
  },
  open: {
    group: ports,
    usage: "[OPTIONS] SANDBOX PORT",
    summary: "Print the address at which a browser reaches a port of a sandbox",
    details: "Whoever has the address can use it until it expires, or the sandbox is started again.",
    options: {
      ttl: { kind: "value", value: "TIME", help: "For how long it is good, at most 24h; default: 1h" },
      output: listOptions.output,
    },
    words: [2, 2],
    load: async () => (await import("./commands/open.ts")).open,
  },
};
