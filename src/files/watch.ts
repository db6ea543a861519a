// What changes in a directory of a sandbox. Nothing is queued here: what a slow caller does not take waits in the sandbox, within bounds.

import type { Waiting } from "../engine/runtime.ts";
import type { Link } from "../toolbox/connection.ts";
import { frame, garbled, reader, request } from "../toolbox/protocol.ts";
import { openExchange } from "./exchange.ts";

export type Change = "created" | "written" | "attributes" | "removed";

export type Update =
  /** What happens from now on is told. The first one. */
  | { readonly kind: "ready" }
  | { readonly kind: "change"; readonly type: Change; readonly path: string; readonly isDirectory: boolean }
  /** Changes were missed. */
  | { readonly kind: "overflow" }
  /** Nothing happened for a while. */
  | { readonly kind: "quiet" };

/** Unit: milliseconds. */
const quietMs = 30_000;

const changes = [undefined, "created", "written", "attributes", "removed"] as const;

/** A directory's and a name below it. Unit: bytes. */
const mostPathBytes = 8192;

export async function* watchDirectory(
  link: Link,
  id: string,
  path: string,
  {
    recursive,
    signal,
    everyMs = quietMs,
  }: Waiting & { readonly recursive: boolean; readonly everyMs?: number },
): AsyncGenerator<Update, void, undefined> {
  const asked = request().str(path).u8(Number(recursive)).frame(frame.watch);
  const options = { subject: { path }, ...(signal === undefined ? {} : { signal }) };
  const exchange = await openExchange(link, id, asked, options);
  try {
    await exchange.expect(frame.ready);
    yield { kind: "ready" };
    let next = exchange.receive("any");
    for (;;) {
      const told = await within(next, everyMs);
      if (told === undefined) {
        yield { kind: "quiet" };
        continue;
      }
      yield updateOf(told.type, told.payload);
      next = exchange.receive("any");
      // who stops listening does not hear of it
      next.catch(() => {});
    }
  } finally {
    exchange.close();
  }
}

function updateOf(type: number, payload: Buffer): Update {
  if (type === frame.overflow) return { kind: "overflow" };
  if (type !== frame.change) throw garbled(`a frame of type ${type}`);
  const told = reader(payload);
  const change = changes[told.u8()];
  const isDirectory = told.u8() !== 0;
  const path = told.bytes();
  if (change === undefined || path.length > mostPathBytes) throw garbled("a change is impossible");
  return { kind: "change", type: change, path: path.toString("utf8"), isDirectory };
}

/** Undefined if it takes longer. */
async function within<T>(next: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([next, late]);
  } finally {
    clearTimeout(timer);
  }
}
