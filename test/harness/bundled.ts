// Programs for the guest, which has no package but Node's.

import { join } from "node:path";
import { rolldown } from "rolldown";

/** A program of this folder, with all that it uses, in one piece. */
export async function bundled(name: string): Promise<string> {
  await using bundle = await rolldown({ input: join(import.meta.dirname, name), platform: "node" });
  const { output } = await bundle.generate({ codeSplitting: false });
  return output[0].code;
}
