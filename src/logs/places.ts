// Keeps how far each sandbox's log has been sent, so that another life of the daemon goes on there. Written a moment after it changed,
// for all sandboxes at once: what was sent since is only sent once more.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Store } from "../store/store.ts";
import type { Place } from "./forward-buffer.ts";

export interface Places {
  get(sandboxId: string): Place | undefined;
  put(place: Place): void;
  /** The sandbox is gone. */
  remove(sandboxId: string): void;
  /** Keeps what is known now and stops. */
  close(): void;
}

const metaKey = "log_places";
const keepAfterMs = 1_000;

/** Instance, container and sequence by sandbox. */
type Document = Readonly<Record<string, readonly [string, string, string]>>;

export function openPlaces(store: Pick<Store, "meta" | "transact">, log: Log): Places {
  const places = new Map<string, Place>();
  const document = JSON.parse(store.meta(metaKey) ?? "{}") as Document;
  for (const [sandboxId, [instance, containerId, sequence]] of Object.entries(document))
    places.set(sandboxId, { sandboxId, instance, containerId, sequence: BigInt(sequence) });
  let timer: NodeJS.Timeout | undefined;

  function keep(): void {
    timer = undefined;
    const kept: Document = Object.fromEntries(
      [...places.values()].map((one) => [
        one.sandboxId,
        [one.instance, one.containerId, String(one.sequence)] as const,
      ]),
    );
    try {
      store.transact((transaction) => transaction.setMeta(metaKey, JSON.stringify(kept)));
    } catch (error) {
      log.debug({ err: messageOf(error) }, "how far logs were sent could not be kept; it is tried again");
      changed();
    }
  }
  const changed = () => {
    timer ??= setTimeout(keep, keepAfterMs);
  };

  return {
    get: (sandboxId) => places.get(sandboxId),
    put(place) {
      places.set(place.sandboxId, place);
      changed();
    },
    remove(sandboxId) {
      if (places.delete(sandboxId)) changed();
    },
    close() {
      if (timer === undefined) return;
      clearTimeout(timer);
      keep();
      clearTimeout(timer);
    },
  };
}
