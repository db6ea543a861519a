// Those who call the daemon: each waits for its answer as long as it is patient, and remembers what it was told.

import { SandboxdError } from "../../src/errors.ts";
import type { SandboxRecord } from "../../src/sandbox/record.ts";
import type { Daemon } from "./daemon.ts";
import type { Call, Ledger } from "./ledger.ts";
import { requestOf } from "./model-host.ts";
import { tenant } from "./tenancy.ts";
import type { VirtualTime } from "./virtual-time.ts";
import { wordsOfCall } from "./words.ts";

type CallAction = Call["action"];

export const caller = { kind: "CALLER", identity: "somebody" } as const;

export const callVerbs: ReadonlySet<string> = new Set<CallAction["do"]>([
  "create",
  "start",
  "stop",
  "delete",
  "pause",
  "resume",
  "renew",
  "update",
]);

export interface Callers {
  /** Calls the daemon, if there is one: `isSame` says later whether it still lives. */
  call(daemon: Daemon | undefined, isSame: () => boolean, action: CallAction, patienceMs: number): void;
  /** Ends every call under way, as the server of a daemon that stops does. */
  hangUp(): void;
}

export interface CallersOptions {
  readonly time: VirtualTime;
  readonly ledger: Ledger;
  readonly say: (words: () => string) => void;
  /** An error that is none of the catalogue's. */
  readonly onUnknown: (error: unknown) => void;
}

export function createCallers({ time, ledger, say, onUnknown }: CallersOptions): Callers {
  /** How to end each call under way. */
  const open = new Set<(reason: Error) => void>();
  let calls = 0;

  return {
    hangUp() {
      for (const end of open) end(new SandboxdError("SHUTTING_DOWN", "the daemon stops"));
    },
    call(daemon, isSame, action, patienceMs) {
      const number = ++calls;
      say(() => `${number}: ${wordsOfCall(action)}`);
      if (daemon === undefined) return say(() => `${number}: nobody answers`);
      const record = ledger.books.record(action.id);
      const story = record === undefined ? undefined : ledger.books.story(record.instance);
      const generation =
        action.do === "renew" ? (record?.generation ?? 1) - (action.isStale ? 1 : 0) : undefined;
      const one: Call = {
        number,
        action,
        story,
        isOver: false,
        ...(generation === undefined ? {} : { generation }),
      };
      const abort = new AbortController();
      const end = (reason: Error) => {
        if (one.isOver) return;
        one.gaveUpAtMs = time.nowMs();
        abort.abort(reason);
      };
      open.add(end);
      time.after(patienceMs, () => end(new Error("the caller gave up")));
      ledger.called(one);
      ask(daemon, action, generation ?? 0, abort.signal).then(
        (answer) => {
          open.delete(end);
          if (!isSame() || one.isOver) return;
          say(() => `${number}: answered ${answer === undefined ? "" : answer.state}`);
          ledger.returned(one, answer);
        },
        (error: unknown) => {
          open.delete(end);
          if (!isSame() || one.isOver) return;
          say(() => `${number}: ${error instanceof Error ? error.message : String(error)}`);
          if (!(error instanceof SandboxdError) && one.gaveUpAtMs === undefined) onUnknown(error);
          ledger.failed(one);
        },
      );
    },
  };
}

/** As the API does with a request of this kind. */
async function ask(
  { manager }: Daemon,
  action: CallAction,
  generation: number,
  signal: AbortSignal,
): Promise<SandboxRecord | undefined> {
  const { id } = action;
  const asking = { actor: caller, signal };
  switch (action.do) {
    case "create": {
      const { wait, wish } = action;
      return await manager.create({ ...asking, id, tenant, spec: requestOf(wish), wait });
    }
    case "start":
      return await manager.start(id, asking);
    case "stop":
      return await manager.stop(id, {
        ...asking,
        ...(action.graceMs === undefined ? {} : { graceMs: action.graceMs }),
      });
    case "delete":
      await manager.delete(id, asking);
      return undefined;
    case "pause":
      return await manager.pause(id, asking);
    case "resume":
      return await manager.resume(id, asking);
    case "renew":
      return await manager.renew(id, { ...asking, generation, ttlMs: action.ttlMs });
    case "update":
      return await manager.update({
        ...asking,
        id,
        resources: action.memoryMiB === undefined ? {} : { memoryBytes: action.memoryMiB * 2 ** 20 },
        ...(action.label === undefined ? {} : { labels: { number: action.label } }),
      });
    default:
      throw new Error(`no call: ${action}`);
  }
}
