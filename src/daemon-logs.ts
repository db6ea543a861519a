// Builds what sends the output of sandboxes on, where a receiver is configured, and builds it anew when that changes.

import { isDeepStrictEqual } from "node:util";
import type { Config } from "./config/config.ts";
import { createForwardBuffer } from "./logs/forward-buffer.ts";
import { createForwarder } from "./logs/forwarder.ts";
import { openPlaces } from "./logs/places.ts";
import { createShipper } from "./logs/shipper.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { LogReader } from "./sandbox/log-reader.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Store } from "./store/store.ts";

export interface LogShippingOptions {
  readonly hostId: string;
  readonly repository: Repository;
  readonly store: Store;
  readonly reader: LogReader;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface LogShipping {
  /** Sends to the receiver of this configuration from now on. What the one before did not take is read again. */
  configure(config: Config): Promise<void>;
  /** Why the receiver is not connected; `connected`, or `off` where none is configured. */
  state(): "off" | "connected" | { readonly problem: string };
  close(): Promise<void>;
}

interface Shipping {
  problem(): string | undefined;
  bufferedBytes(): number;
  close(): Promise<void>;
}

export function createLogShipping(options: LogShippingOptions): LogShipping {
  const { metrics, onRender } = options.registry;
  let forward: Config["logs"]["forward"] | undefined;
  let shipping: Shipping | undefined;
  let changing: Promise<void> = Promise.resolve();

  onRender(() => {
    metrics.logForwardBuffered.set({}, shipping?.bufferedBytes() ?? 0);
    metrics.logForwardConnected.set({}, shipping !== undefined && shipping.problem() === undefined ? 1 : 0);
  });

  async function change(wanted: Config["logs"]["forward"] | undefined): Promise<void> {
    if (isDeepStrictEqual(wanted, forward)) return;
    forward = wanted;
    await shipping?.close();
    shipping = wanted === undefined ? undefined : startShipping(wanted, options);
  }
  const next = (wanted: Config["logs"]["forward"] | undefined) => {
    changing = changing.then(() => change(wanted));
    return changing;
  };

  return {
    configure: ({ logs }) => next(logs.forward),
    state() {
      if (shipping === undefined) return "off";
      const problem = shipping.problem();
      return problem === undefined ? "connected" : { problem };
    },
    close: () => next(undefined),
  };
}

const warningsEveryMs = 60_000;

function startShipping(
  { address, tag, bufferBytes, flushIntervalMs, ack, tls }: Config["logs"]["forward"],
  { hostId, repository, store, reader, registry, log: parent }: LogShippingOptions,
): Shipping | undefined {
  if (address === undefined) return undefined;
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
