// The keys that bound the processes which callers start in sandboxes, and how long their ends are known.

import { duration, integer, section, size, text } from "./field.ts";
import * as rule from "./rule.ts";

const mebibyte = 1024 * 1024;

export const processesSection = () =>
  section("Processes that callers start in sandboxes.", {
    max_running: integer({
      min: 1,
      max: 1024,
      default: 64,
      meaning: "Most that run in one sandbox at once. Its pids limit holds besides.",
    }),
    max_retained: integer({
      min: 0,
      max: 10_000,
      default: 256,
      meaning: "Most ended ones of one sandbox whose end is kept; the oldest go first.",
    }),
    exit_retention: duration({
      min: "1s",
      max: "30d",
      default: "1h",
      meaning: "How long the end of one is kept, over restarts of the daemon too.",
    }),
    output_bytes: size({
      min: mebibyte,
      max: 64 * 1024 * mebibyte,
      default: 256 * mebibyte,
      meaning:
        "Output kept in memory for all of them together. Beyond it goes what those that have ended wrote, and of those that run all but the newest 64 KiB each.",
    }),
    toolbox_directory: text(rule.absolutePath, {
      meaning:
        "Where the program is kept that works inside of sandboxes. The engine must see it at the same path; not on a file system mounted noexec. Left out: toolbox, in the state directory.",
    }),
  });
