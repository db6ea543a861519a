// The word "get" of commands that list otherwise.

import { type Arguments, UsageError } from "./arguments.ts";

/** What follows "get"; undefined for the list. @throws UsageError */
export function askedFor(command: string, { words }: Arguments): readonly string[] | undefined {
  const [verb, ...ids] = words;
  if (verb === undefined || (verb === "list" && ids.length === 0)) return undefined;
  if (verb === "get" && ids.length > 0) return ids;
  throw new UsageError(`${command} ${JSON.stringify(verb)}: expected nothing, or get and what`);
}
