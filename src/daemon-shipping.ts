// What sends the output of sandboxes on to one receiver. Loaded only where one is configured.

import type { Config } from "./config/config.ts";
import type { ListenAddress } from "./config/rule.ts";
import { createForwardBuffer } from "./logs/forward-buffer.ts";
import { createForwarder } from "./logs/forwarder.ts";
import { openPlaces } from "./logs/places.ts";
import { createShipper } from "./logs/shipper.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { LogReader } from "./sandbox/log-reader.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Store } from "./store/store.ts";

export interface ShippingOptions {
  readonly hostId: string;
  readonly repository: Repository;
  readonly store: Store;
  readonly reader: LogReader;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface Shipping {
  problem(): string | undefined;
  bufferedBytes(): number;
  close(): Promise<void>;
}

const warningsEveryMs = 60_000;

/** Starts to send. Ends with `close`, which lets what is under way be confirmed. */
export function startShipping(
  address: ListenAddress,
  { tag, bufferBytes, flushIntervalMs, ack, tls }: Config["logs"]["forward"],
  { hostId, repository, store, reader, registry, log: parent }: ShippingOptions,
): Shipping {
  const { metrics } = registry;
  const log = parent.child("logs");
  const places = openPlaces(store, log);
  let warnedAtMs = Number.NEGATIVE_INFINITY;
  let unsaid = 0;
  const buffer = createForwardBuffer({
    mostBytes: bufferBytes,
    gatherMs: flushIntervalMs,
    nowMs: () => performance.now(),
    dropped(records, bytes) {
      metrics.logForwardDroppedRecords.add({}, records);
      metrics.logForwardDroppedBytes.add({}, bytes);
      unsaid += records;
      if (performance.now() < warnedAtMs + warningsEveryMs) return;
      warnedAtMs = performance.now();
      log.warn(
        { count: unsaid, hint: "the receiver is away or too slow: see [logs.forward]" },
        "records of sandboxes' logs were dropped, the oldest first",
      );
      unsaid = 0;
    },
    settled: places.put,
  });
  const { ca, certificate, key } = tls;
  const forwarder = createForwarder({
    receiver: {
      address,
      ack,
      ...(ca === undefined
        ? {}
        : {
            tls: {
              ca,
              ...(certificate === undefined ? {} : { certificate }),
              ...(key === undefined ? {} : { key }),
            },
          }),
    },
    buffer,
    sent: (records) => metrics.logForwardRecords.add({}, records),
    log,
  });
  const shipper = createShipper({
    ...{ hostId, tag, repository, reader, places, buffer, log },
    filled: forwarder.wake,
    gap: () => metrics.logForwardGaps.add({}),
  });
  return {
    problem: forwarder.problem,
    bufferedBytes: buffer.bytes,
    async close() {
      await shipper.close();
      await forwarder.close();
      places.close();
    },
  };
}
