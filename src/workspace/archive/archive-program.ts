// Packs or unpacks one workspace as its tenant's user, and ends: a program of its own, see archive.ts. All modules are loaded
// while it is root, since that user may not be able to read them; no byte of the tenant's is looked at until it is root no more.

import { closeSync, constants, openSync, writeSync } from "node:fs";
import { stat } from "node:fs/promises";
import { setPriority } from "node:os";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { messageOf, SandboxdError } from "../../errors.ts";
import { createCompressor } from "./compression.ts";
import { printable } from "./names.ts";
import { encodeOutcome, type Outcome, outcomeDescriptor, type Work } from "./outcome.ts";
import { packTree } from "./pack.ts";
import { becomeUser } from "./privileges.ts";
import { unpackTree } from "./unpack.ts";

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;

/** Sandboxes and the daemon come first. */
const niceness = 10;

async function pack(root: number, { maxBytes }: Work): Promise<Readonly<Record<string, number>>> {
  let report: Readonly<Record<string, number>> | undefined;
  const pieces = function* () {
    report = { ...(yield* packTree({ root, maxBytes })) };
  };
  await pipeline(Readable.from(pieces(), { objectMode: false }), createCompressor(), process.stdout);
  // all of it has left when this has
  await new Promise((resolve) => process.stdout.write("", resolve));
  if (report === undefined) throw new Error("the archive has no end");
  return report;
}

async function unpack(
  root: number,
  { maxBytes, maxEntries }: Work,
): Promise<Readonly<Record<string, number>>> {
  if (maxBytes === undefined || maxEntries === undefined) throw new Error("unpacking needs limits");
  return { ...(await unpackTree({ root, chunks: process.stdin, maxBytes, maxEntries })) };
}

async function run(work: Work): Promise<Outcome> {
  try {
    setPriority(niceness);
    // opened as root, whoever may pass the directories above; those above are root's alone
    const root = openSync(work.directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    process.chdir("/");
    // threads are made while no limit on processes counts the tenant's
    await stat("/");
    becomeUser(work.uid);
    const counts = await (work.task === "pack" ? pack(root, work) : unpack(root, work));
    closeSync(root);
    return { counts };
  } catch (error) {
    if (error instanceof SandboxdError) return { error };
    return { error: new SandboxdError("INTERNAL", printable(messageOf(error), 512)) };
  }
}

const outcome = await run(JSON.parse(process.argv[2] ?? "{}"));
writeSync(outcomeDescriptor, encodeOutcome(outcome));
// what is still to come of the archive is not waited for
process.exit("error" in outcome ? 1 : 0);
