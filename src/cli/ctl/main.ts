// sandboxctl: from the command line to a call of the daemon's API, and to an exit code.

import { optionValue, parseArguments, UsageError } from "./arguments.ts";
import { createByteOutput, OutputClosed } from "./byte-output.ts";
import { commands } from "./catalogue.ts";
import { CommandFailed, type Context } from "./context.ts";
import { commandHelp, globalHelp, globalOptions } from "./help.ts";
import { parseTarget, type Target } from "./target.ts";
import { printable, printableLines } from "./text.ts";

/** As a shell tells of a program that wrote to a pipe without a reader. */
const brokenPipe = 141;

const usageCode = 2;

// a reader of a list that has seen enough
process.stdout.on("error", () => process.exit(brokenPipe));

const warn = (line: string) => void process.stderr.write(`${line}\n`);

process.exit(await main(process.argv.slice(2)));

async function main(argv: readonly string[]): Promise<number> {
  try {
    return await runCommand(argv);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    warn(`sandboxctl: ${printable(error.message)}\nSee "sandboxctl help".`);
    return usageCode;
  }
}

async function runCommand(argv: readonly string[]): Promise<number> {
  const global = parseArguments(argv, { specs: globalOptions, interspersed: false });
  const [name, ...rest] = global.words;
  if (global.flags.has("help") || (name === "help" && rest.length === 0)) return say(globalHelp());
  if (name === "help") return say(commandHelp(...known(rest.join(" "))));
  if (name === undefined && !global.flags.has("version")) {
    process.stderr.write(globalHelp());
    return usageCode;
  }
  const [word, spec] = known(name ?? "version");
  if (isHelpAsked(rest, spec.interspersed ?? true)) return say(commandHelp(word, spec));
  const args = parseArguments(rest, { specs: spec.options, interspersed: spec.interspersed ?? true });
  const [least, most] = spec.words;
  if (args.words.length < least || args.words.length > most)
    throw new UsageError(`"sandboxctl ${word}" is used as: sandboxctl ${word} ${spec.usage}`);
  const target = parseTarget(
    {
      host: optionValue(global, "host"),
      cert: optionValue(global, "cert"),
      key: optionValue(global, "key"),
      ca: optionValue(global, "ca"),
    },
    process.env,
  );
  try {
    const [context, command] = await Promise.all([contextFor(target), spec.load()]);
    return await command(context, args);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    return await failed(error, target.name, spec.failureCode ?? 1);
  }
}

function known(name: string): readonly [string, (typeof commands)[string]] {
  const spec = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (spec === undefined) throw new UsageError(`unknown command ${JSON.stringify(name)}`);
  return [name, spec];
}

/** Before the words that are the sandbox's. */
function isHelpAsked(words: readonly string[], interspersed: boolean): boolean {
  const own = interspersed ? words : words.slice(0, 1);
  const end = own.indexOf("--");
  return own.slice(0, end === -1 ? undefined : end).some((word) => word === "--help");
}

async function contextFor(target: Target): Promise<Context> {
  const { createConnection } = await import("./connection.ts");
  return {
    ...createConnection(target),
    host: target.name,
    env: process.env,
    print: (text) => void process.stdout.write(text),
    warn,
    stdout: createByteOutput(1),
    stderr: createByteOutput(2),
  };
}

async function failed(error: unknown, host: string, failureCode: number): Promise<number> {
  if (error instanceof OutputClosed) return brokenPipe;
  if (error instanceof CommandFailed) {
    warn(`sandboxctl: ${printableLines(error.message)}`);
    if (error.hint !== undefined) warn(`hint: ${printableLines(error.hint)}`);
    return error.exitCode;
  }
  const { failureLines } = await import("./failure.ts");
  for (const line of failureLines(error, host)) warn(line);
  return failureCode;
}

function say(text: string): number {
  process.stdout.write(text);
  return 0;
}
