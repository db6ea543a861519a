// What every command is given: the daemon, and where to write.

import type { Arguments } from "./arguments.ts";
import type { ByteOutput } from "./byte-output.ts";
import type { Connection } from "./connection.ts";

export interface Context extends Connection {
  /** The daemon, as the caller named it. */
  readonly host: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Text for standard output. Whatever a stranger wrote must have been made printable. */
  print(text: string): void;
  /** A line for standard error, likewise. */
  warn(line: string): void;
  /** What sandboxes write, byte for byte. */
  readonly stdout: ByteOutput;
  readonly stderr: ByteOutput;
}

/** Resolves to the exit code. */
export type Command = (context: Context, args: Arguments) => Promise<number>;

/** An end with a message for standard error and an exit code of its own. */
export class CommandFailed extends Error {
  override readonly name = "CommandFailed";
  readonly exitCode: number;
  readonly hint: string | undefined;

  constructor(
    message: string,
    { exitCode = 1, hint }: { readonly exitCode?: number; readonly hint?: string } = {},
  ) {
    super(message);
    this.exitCode = exitCode;
    this.hint = hint;
  }
}
