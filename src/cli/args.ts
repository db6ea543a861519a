// From argv to one command, or to what is wrong with it.

import { parseArgs } from "node:util";
import { messageOf } from "../errors.ts";

/** What `serve` and `config check` take. */
export interface ConfigArgs {
  /** --config. Undefined: the default file, where it exists. */
  readonly configFile: string | undefined;
  /** --dev: allows what is only fit for development. */
  readonly dev: boolean;
  /** --set, each "section.key=value". */
  readonly set: readonly string[];
}

export type Command =
  | ({ readonly command: "serve" } & ConfigArgs)
  | ({ readonly command: "config-check" } & ConfigArgs)
  | {
      readonly command: "dev-scheduler";
      readonly listen: { readonly host: string; readonly port: number };
      /** Whether it prints JSON lines. */
      readonly json: boolean;
    }
  | { readonly command: "version" }
  | { readonly command: "help" }
  /** To be told on standard error, with exit code 2. */
  | { readonly command: "usage-error"; readonly message: string };

export const usage = `Usage:
  sandboxd serve [--config FILE] [--dev] [--set SECTION.KEY=VALUE]...
      Run the daemon.
  sandboxd config check [--config FILE] [--dev] [--set SECTION.KEY=VALUE]...
      Check the configuration; print it as it takes effect, or all its errors.
  sandboxd dev-scheduler --listen HOST:PORT [--json]
      Run a scheduler for development that prints what daemons tell it.
  sandboxd version
  sandboxd help

Options:
  --config FILE   Configuration, TOML. Default: /etc/sandboxd/sandboxd.toml, where it exists.
  --dev           Allow plain TCP on loopback, and schedulers without TLS.
  --set KEY=VALUE Set one key; wins over the environment (SANDBOXD_SECTION_KEY) and the file.
                  Lists are separated by commas, tables are NAME=VALUE pairs separated by commas.

Exit codes: 0 done, 1 failed, 2 wrong usage.
`;

/** Reads the arguments after the program's name. Never throws. */
export function parseCommand(argv: readonly string[]): Command {
  const [word, ...rest] = argv;
  switch (word) {
    case "serve":
      return parseConfigArgs("serve", rest);
    case "config":
      if (rest[0] === "check") return parseConfigArgs("config-check", rest.slice(1));
      return isHelp(rest[0])
        ? { command: "help" }
        : usageError(`config ${rest[0] ?? ""}: expected "config check"`);
    case "dev-scheduler":
      return parseDevScheduler(rest);
    case "version":
    case "--version":
      return rest.length === 0 ? { command: "version" } : usageError(`unexpected argument ${quote(rest[0])}`);
    case "help":
    case "--help":
    case "-h":
      return { command: "help" };
    case undefined:
      return usageError("a command is missing");
    default:
      return usageError(`unknown command ${quote(word)}`);
  }
}

function parseConfigArgs(command: "serve" | "config-check", args: readonly string[]): Command {
  return attempt(() => {
    const { values } = parseArgs({
      args: [...args],
      options: {
        config: { type: "string" },
        dev: { type: "boolean", default: false },
        set: { type: "string", multiple: true, default: [] },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    if (values.help) return { command: "help" };
    if (values.config === "") return usageError("--config needs the path of a file");
    const wrong = values.set.find((one) => !/^[^=]+=/.test(one));
    if (wrong !== undefined) return usageError(`--set ${quote(wrong)}: expected SECTION.KEY=VALUE`);
    return { command, configFile: values.config, dev: values.dev, set: values.set };
  });
}

function parseDevScheduler(args: readonly string[]): Command {
  return attempt(() => {
    const { values } = parseArgs({
      args: [...args],
      options: {
        listen: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    if (values.help) return { command: "help" };
    if (values.listen === undefined) return usageError("dev-scheduler needs --listen HOST:PORT");
    const [, six, name, digits] =
      /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(values.listen) ?? [];
    const host = six ?? name;
    const port = Number(digits);
    if (host === undefined || port > 65_535) {
      return usageError(`--listen ${quote(values.listen)}: expected HOST:PORT, as 127.0.0.1:7080`);
    }
    return { command: "dev-scheduler", listen: { host, port }, json: values.json };
  });
}

/** `parseArgs` throws on what it doesn't know; its first sentence says what that was. */
function attempt(parse: () => Command): Command {
  try {
    return parse();
  } catch (error) {
    const [sentence = ""] = messageOf(error).split(/\.\s|\n/);
    return usageError(sentence);
  }
}

const isHelp = (word: string | undefined): boolean => word === "--help" || word === "-h";

const quote = (word: string | undefined): string => JSON.stringify(word ?? "");

function usageError(message: string): Command {
  return { command: "usage-error", message: `${message}. See "sandboxd help".` };
}
