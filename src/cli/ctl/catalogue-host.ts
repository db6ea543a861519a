// Commands about the host and what belongs to tenants beside sandboxes.

import { anyNumber, type CommandSpec } from "./command-spec.ts";
import { listOptions } from "./output.ts";

const group = "Host";

export const hostCommands: Readonly<Record<string, CommandSpec>> = {
  events: {
    group,
    usage: "[OPTIONS]",
    summary: "Tell what happens on the host, until interrupted",
    options: {
      since: {
        kind: "value",
        value: "SEQUENCE",
        help: "Begin after this event; 0: with the oldest retained",
      },
      "no-follow": { kind: "flag", short: "n", help: "End with the newest event that there is" },
      tenant: { kind: "value", value: "NAME", help: "Only of this tenant" },
      sandbox: { kind: "value", value: "ID", help: "Only of this sandbox" },
      output: listOptions.output,
    },
    words: [0, 0],
    load: async () => (await import("./commands/events.ts")).events,
  },
  host: {
    group,
    usage: "[OPTIONS] [check | cordon | uncordon | drain]",
    summary: "Show the host, examine it, or take it out of service",
    details: `
  check      Examine it, as a doctor would; exit code 1 if something that is promised does not hold
  cordon     Accept no new sandboxes
  uncordon   Accept them again
  drain      Cordon it and stop all sandboxes; wait until it is empty`,
    options: {
      reason: { kind: "value", value: "TEXT", help: "Why, for people: cordon, uncordon, drain" },
      policy: {
        kind: "value",
        value: "stop|wait",
        help: "drain: stop all at once, or let them end by themselves",
      },
      deadline: { kind: "value", value: "TIME", help: "drain: when those that are left are stopped" },
      output: listOptions.output,
    },
    words: [0, 1],
    load: async () => (await import("./commands/host.ts")).host,
  },
  tenants: {
    group,
    usage: "[OPTIONS] [get NAME...]",
    summary: "List tenants, or print all that is known of some",
    options: listOptions,
    words: [0, anyNumber],
    load: async () => (await import("./commands/tenants.ts")).tenants,
  },
  workspaces: {
    group,
    usage: "[OPTIONS] [get ID...]",
    summary: "List workspaces, or print all that is known of some",
    options: { tenant: { kind: "value", value: "NAME", help: "Only of this tenant" }, ...listOptions },
    words: [0, anyNumber],
    load: async () => (await import("./commands/workspaces.ts")).workspaces,
  },
  version: {
    group,
    usage: "",
    summary: "Print the versions of this program and of the daemon",
    options: { client: { kind: "flag", help: "Of this program alone" } },
    words: [0, 0],
    load: async () => (await import("./commands/version.ts")).printVersion,
  },
};
