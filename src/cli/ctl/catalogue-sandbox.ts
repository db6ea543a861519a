// Commands about sandboxes as a whole.

import type { OptionSpecs } from "./arguments.ts";
import { anyNumber, type CommandSpec } from "./command-spec.ts";
import { listOptions } from "./output.ts";

const group = "Sandboxes";

const many = { group, usage: "SANDBOX...", words: [1, anyNumber], options: {} } as const;

const creation = {
  tenant: { kind: "value", value: "NAME", help: "Owner (SANDBOXCTL_TENANT)" },
  template: { kind: "value", value: "NAME", help: "Template of the host's configuration" },
  image: { kind: "value", value: "REF", help: "Image; required unless the template has one" },
  id: { kind: "value", value: "ID", help: "Id of the sandbox; default: one is made" },
  env: { kind: "list", short: "e", value: "K=V", help: "Environment; K alone takes the value from here" },
  label: { kind: "list", short: "l", value: "K=V", help: "Label" },
  memory: { kind: "value", short: "m", value: "BYTES", help: "Memory limit, as 512m" },
  cpus: { kind: "value", value: "N", help: "CPU limit, as 0.5" },
  pids: { kind: "value", value: "N", help: "Most processes and threads" },
  workspace: { kind: "value", value: "ID[:ro]", help: "Workspace at /workspace" },
  workdir: { kind: "value", short: "w", value: "DIR", help: "Where the command starts" },
  tmpfs: { kind: "list", value: "PATH:BYTES", help: "Directory in memory" },
  shared: { kind: "list", value: "NAME[:PATH]", help: "Directory that the host shares" },
  network: { kind: "value", value: "MODE", help: "none, internal or egress; default: the template's" },
  volume: { kind: "list", short: "v", value: "NAME[:PATH[:ro]]", help: "Volume that the host declares" },
  ttl: { kind: "value", value: "TIME", help: "Delete it that long after its creation, as 1h" },
  "idle-timeout": { kind: "value", value: "TIME", help: "Delete it after so long without activity" },
  restart: { kind: "value", value: "MODE[:N]", help: "no, on-failure or unless-stopped, at most N times" },
} as const satisfies OptionSpecs;

export const sandboxCommands: Readonly<Record<string, CommandSpec>> = {
  ps: {
    group,
    usage: "[OPTIONS]",
    summary: "List sandboxes, those that have not ended",
    options: {
      all: { kind: "flag", short: "a", help: "Also those that have" },
      tenant: { kind: "value", value: "NAME", help: "Only of this tenant" },
      label: { kind: "list", short: "l", value: "K=V", help: "Only with this label" },
      "no-trunc": { kind: "flag", help: "Show commands and images whole" },
      ...listOptions,
    },
    words: [0, 0],
    load: async () => (await import("./commands/ps.ts")).ps,
  },
  create: {
    group,
    usage: "[OPTIONS] [COMMAND [ARG...]]",
    summary: "Create a sandbox, wait until it runs, and print its id",
    options: creation,
    words: [0, anyNumber],
    interspersed: false,
    load: async () => (await import("./commands/create.ts")).createSandbox,
  },
  run: {
    group,
    usage: "[OPTIONS] [COMMAND [ARG...]]",
    summary: "Create a sandbox, show its output, and end with the exit code of its command",
    details: "SIGINT or SIGTERM stops the sandbox.",
    options: {
      detach: { kind: "flag", short: "d", help: "Do not wait: as create" },
      rm: { kind: "flag", help: "Delete the sandbox when its command has ended" },
      ...creation,
    },
    words: [0, anyNumber],
    interspersed: false,
    failureCode: 125,
    load: async () => (await import("./commands/run.ts")).run,
  },
  inspect: {
    ...many,
    summary: "Print all that is known of sandboxes, as a JSON array",
    load: async () => (await import("./commands/inspect.ts")).inspect,
  },
  explain: {
    group,
    usage: "SANDBOX",
    words: [1, 1],
    summary: "Say in plain words how a sandbox is",
    options: { output: listOptions.output },
    load: async () => (await import("./commands/explain.ts")).explain,
  },
  start: {
    ...many,
    summary: "Start sandboxes that have ended",
    load: async () => (await import("./commands/lifecycle.ts")).start,
  },
  stop: {
    ...many,
    usage: "[OPTIONS] SANDBOX...",
    summary: "Stop sandboxes",
    options: {
      time: { kind: "value", short: "t", value: "TIME", help: "Before SIGKILL; default: the sandbox's own" },
    },
    load: async () => (await import("./commands/lifecycle.ts")).stop,
  },
  pause: {
    ...many,
    summary: "Freeze sandboxes",
    load: async () => (await import("./commands/lifecycle.ts")).pause,
  },
  resume: {
    ...many,
    summary: "Let frozen sandboxes go on",
    load: async () => (await import("./commands/lifecycle.ts")).resume,
  },
  rm: {
    ...many,
    usage: "[OPTIONS] SANDBOX...",
    summary: "Delete sandboxes that have ended",
    options: { force: { kind: "flag", short: "f", help: "Also those that run; they are killed" } },
    load: async () => (await import("./commands/lifecycle.ts")).remove,
  },
  logs: {
    group,
    usage: "[OPTIONS] SANDBOX",
    words: [1, 1],
    summary: "Print what the main command of a sandbox wrote",
    details: "Standard error goes to standard error.",
    options: {
      follow: {
        kind: "flag",
        short: "f",
        help: "Wait for more, over restarts, until the sandbox is deleted",
      },
      tail: { kind: "value", short: "n", value: "N", help: "Begin with the last N lines" },
      since: { kind: "value", value: "TIME", help: "Begin at a time, as 2026-01-31T12:00:00Z, or 10m ago" },
      timestamps: { kind: "flag", short: "t", help: "Put the time before each line" },
    },
    load: async () => (await import("./commands/logs.ts")).logs,
  },
  stats: {
    group,
    usage: "[OPTIONS] [SANDBOX...]",
    words: [0, anyNumber],
    summary: "Show what sandboxes use, every second",
    options: { "no-stream": { kind: "flag", help: "Once" }, output: listOptions.output },
    load: async () => (await import("./commands/stats.ts")).stats,
  },
};
