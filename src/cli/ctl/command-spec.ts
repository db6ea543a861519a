// What is known of a command before its code is loaded: programs that start for one question should not read all of them.

import type { OptionSpecs } from "./arguments.ts";
import type { Command } from "./context.ts";

export interface CommandSpec {
  /** Its heading in the help. */
  readonly group: string;
  /** After "sandboxctl NAME". */
  readonly usage: string;
  /** A sentence without its full stop. */
  readonly summary: string;
  /** More for its own help. */
  readonly details?: string;
  readonly options: OptionSpecs;
  /** Least and most words that are no options. */
  readonly words: readonly [least: number, most: number];
  /** Whether options may follow after words. Default: true. */
  readonly interspersed?: boolean;
  /** When the daemon or the connection failed. Default: 1. */
  readonly failureCode?: number;
  readonly load: () => Promise<Command>;
}

export const anyNumber = Number.POSITIVE_INFINITY;
