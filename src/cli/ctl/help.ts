// What the help says: all commands in groups, or one with its options.

import type { OptionSpecs } from "./arguments.ts";
import { type CommandSpec, commands } from "./catalogue.ts";
import { defaultHost, hostVariables } from "./target.ts";

/** Before the command. */
export const globalOptions = {
  host: {
    kind: "value",
    short: "H",
    value: "URL",
    help: `The daemon: unix:///PATH, https://HOST:PORT, http://127.0.0.1:PORT (${hostVariables.host})`,
  },
  cert: { kind: "value", value: "FILE", help: `Client certificate for https (${hostVariables.cert})` },
  key: { kind: "value", value: "FILE", help: `Its key (${hostVariables.key})` },
  ca: {
    kind: "value",
    value: "FILE",
    help: `Authorities that the daemon's certificate is checked by (${hostVariables.ca})`,
  },
  help: { kind: "flag", short: "h", help: "This help" },
  version: { kind: "flag", short: "v", help: "Version of this program and of the daemon" },
} as const satisfies OptionSpecs;

export function globalHelp(): string {
  const groups = Map.groupBy(Object.entries(commands), ([, { group }]) => group);
  const listed = [...groups].map(([group, members]) => {
    const lines = members.map(([name, { summary }]) => `  ${name.padEnd(12)}${summary}\n`);
    return `\n${group}:\n${lines.join("")}`;
  });
  return `Usage: sandboxctl [OPTIONS] COMMAND

Sandboxes of a host, from the command line. The daemon is looked for at ${defaultHost}
unless said otherwise.
${listed.join("")}
Options:
${optionLines(globalOptions)}
"sandboxctl help COMMAND" tells more of a command. Exit codes: 0 done, 1 failed, 2 wrong usage; exec, shell, attach
and run: 125 failed, 126 not executable, 127 not found, else the command's own.
`;
}

export function commandHelp(name: string, { usage, summary, options, details }: CommandSpec): string {
  const listed = Object.keys(options).length === 0 ? "" : `\nOptions:\n${optionLines(options)}`;
  return `Usage: sandboxctl ${name} ${usage}\n\n${summary}.\n${details === undefined ? "" : `${details}\n`}${listed}`;
}

function optionLines(options: OptionSpecs): string {
  const rows = Object.entries(options).map(([name, { short, value, help }]) => {
    const letter = short === undefined ? "    " : `-${short}, `;
    return [`  ${letter}--${name}${value === undefined ? "" : ` ${value}`}`, help] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length)) + 3;
  return rows.map(([left, help]) => `${left.padEnd(width)}${help}\n`).join("");
}
