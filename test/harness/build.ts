// Compiles the daemon once before the tests that start it.

import { ensureBuild } from "../../tools/lib/build.mjs";

export default async function setup(): Promise<void> {
  try {
    await ensureBuild({ log: (line: string) => console.log(line) });
  } catch (error) {
    // Not an end to the tests: most need no compiled daemon, and those that start one then say so themselves.
    console.warn(`the daemon was not compiled cleanly: ${String(error)}`);
  }
}
