// Builds the parts, starts them in order, and stops them in the reverse. Order of the start: lock and open the state, reach the
// engine, adopt, serve, connect to the scheduler. Sandboxes outlive every stop.

import { readFileSync } from "node:fs";
import { EventService } from "../gen/sandboxd/v1/event_service_pb.ts";
import { HostService } from "../gen/sandboxd/v1/host_service_pb.ts";
import { SandboxService } from "../gen/sandboxd/v1/sandbox_service_pb.ts";
import { createEventService } from "./api/event-service.ts";
import { createExplainer } from "./api/explainer.ts";
import { createHealthRegistry } from "./api/health.ts";
import { createHostService } from "./api/host-service.ts";
import type { ListenerConfig } from "./api/listeners.ts";
import { createSandboxService } from "./api/sandbox-service.ts";
import { createApiServer } from "./api/server.ts";
import { createStatsFeed } from "./api/stats-feed.ts";
import { createTerms, createUplinkSource } from "./api/uplink-source.ts";
import type { Config } from "./config/config.ts";
import { meterState, uplinkMetrics } from "./daemon-metrics.ts";
import { cgroupPathsAt } from "./engine/cgroup-path.ts";
import { createDockerRuntime } from "./engine/docker.ts";
import { readCapacity } from "./host/capacity.ts";
import { createHost } from "./host/host.ts";
import { openIdentity } from "./host/identity.ts";
import { createScheduling } from "./host/schedule.ts";
import { readBootId } from "./monitor/host-id.ts";
import { openHostSampler } from "./monitor/host-sampler.ts";
import { createInventory } from "./monitor/inventory.ts";
import { createSampler } from "./monitor/sampler-loop.ts";
import type { Log } from "./observe/log.ts";
import { createMetrics } from "./observe/metrics.ts";
import { createMetricsListener } from "./observe/metrics-listener.ts";
import { watchProcess } from "./observe/process-metrics.ts";
import { createClock } from "./sandbox/clock.ts";
import { createEngineWatch } from "./sandbox/engine-watch.ts";
import { createLabelCodec } from "./sandbox/labels.ts";
import { createManager } from "./sandbox/manager.ts";
import { stopByPolicy } from "./sandbox/policy-stop.ts";
import { createReconciler } from "./sandbox/reconciler.ts";
import { createRepository } from "./sandbox/repository.ts";
import { createSweeper } from "./sandbox/sweeper.ts";
import { createUplink } from "./scheduler/uplink.ts";
import { openStore, type Store } from "./store/store.ts";
import { version } from "./version.ts";

export interface Daemon {
  /** Refuses new work, lets what is in flight finish within its bound, and closes everything. */
  close(): Promise<void>;
}

export interface DaemonOptions {
  readonly config: Config;
  /** Allows plain TCP on loopback. */
  readonly dev: boolean;
  readonly log: Log;
}

const drainMs = 10_000;
const stateProbeMs = 5_000;

/** Starts a daemon. @throws Error when the state directory or a listener cannot be had. */
export async function startDaemon({ config, dev, log }: DaemonOptions): Promise<Daemon> {
  const began = performance.now();
  const closers: (() => void | Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const registry = createMetrics();
    const { metrics } = registry;
    metrics.buildInfo.set({ version, node: process.version }, 1);
    const processWatch = watchProcess(registry);
    closers.push(() => processWatch.close());

    const store = openStore({
      directory: config.state.directory,
      onSync: (seconds) => metrics.storeWriteDuration.observe({}, seconds),
      eventRetention: { count: config.state.eventRetention, ageMs: config.state.eventRetentionAgeMs },
    });
    closers.push(() => store.close());
    if (store.setAside !== undefined) {
      log.error(
        { path: store.setAside },
        "the state could not be read; it was set aside, and sandboxes are rebuilt from their labels",
      );
    }
    const { hostId, key } = openIdentity(config.state.directory, config.host.id);
    const bootId = await readBootId();
    const repository = createRepository(store);
    const clock = createClock({ bootId, store });
    closers.push(() => clock.close());
    const labels = createLabelCodec(hostId, key);
    const host = createHost({
      hostId,
      bootId,
      labels: config.host.labels,
      cgroupParent: config.engine.cgroupParent,
      capacity: readCapacity(config.capacity),
      store,
      repository,
      log: log.child("host"),
    });
    closers.push(() => host.close());

    const runtime = createDockerRuntime({
      socket: config.engine.socket,
      timeoutsMs: timeoutsOf(config),
      observe(verb, outcome, seconds) {
        metrics.engineCalls.add({ verb, outcome });
        metrics.engineCallDuration.observe({ verb }, seconds);
      },
    });
    closers.push(() => runtime.close());

    const samplerLog = log.child("sampler");
    const sampler = createSampler({
      intervalMs: config.sampling.periodMs,
      historySize: Math.max(
        2,
        Math.min(3_600, Math.ceil(config.sampling.historyMs / config.sampling.periodMs)),
      ),
      onError: (error, sandbox) => samplerLog.warn({ sandbox, err: error }, "sample failed"),
    });
    closers.push(() => sampler.close());
    const hostSampler = await openHostSampler({ directories: [config.state.directory] });
    closers.push(() => hostSampler.close());
    const feed = createStatsFeed({
      sampler,
      hostSampler,
      onOomKill(id) {
        const record = repository.get(id);
        if (record?.state === "RUNNING") repository.put(record, "SANDBOX_OOM");
      },
    });
    closers.push(() => feed.close());

    const reconciler = createReconciler({
      runtime,
      repository,
      labels,
      host: () => host.facts(),
      bootId,
      watch: feed.watch,
      vitals: { idleSinceMs: () => undefined, health: () => undefined },
      clock,
      isEngineAway: () => host.isEngineAway(),
      isDeleted: (instance) => store.isTombstone(instance),
      pullImages: config.images.pull === "missing",
      concurrentStarts: config.capacity.concurrentStarts,
      log: log.child("reconciler"),
    });
    closers.push(() => reconciler.close());
    const sweeper = createSweeper({ repository, clock, kick: (id) => reconciler.kick(id) });
    closers.push(() => sweeper.close());
    const scheduling = createScheduling({
      store,
      repository,
      clock,
      stop: (id, why) => stopByPolicy(repository, (one) => reconciler.kick(one), id, why),
      log: log.child("schedule"),
    });
    closers.push(() => scheduling.close());
    closers.push(scheduling.subscribe(() => host.changed()));
    const view = { host, scheduling, clock };
    closers.push(meterState(registry, { repository, host, store, sampler }));
    const health = createHealthRegistry();
    const engineWatch = createEngineWatch({
      runtime,
      repository,
      reconciler,
      store,
      labels,
      hostId,
      bootId,
      relistPeriodMs: config.engine.relistPeriodMs,
      orphanGraceMs: config.engine.orphanGraceMs,
      adopt(id, containerId) {
        const facts = host.facts();
        if (facts === undefined || feed.watch.isWatching(id)) return;
        feed.watch.began(
          id,
          cgroupPathsAt({ containerId, parent: facts.cgroupParent, version: facts.cgroupVersion }),
          { isNew: false },
        );
      },
      onHealth: (found) => host.engineIs(found),
      log: log.child("engine"),
    });
    const tellHealth = () =>
      health.set(SandboxService.typeName, host.accepting() ? "SERVING" : "NOT_SERVING");
    await engineWatch.start();
    closers.push(() => engineWatch.close());
    health.set("", "SERVING");
    health.set(HostService.typeName, "SERVING");
    health.set(EventService.typeName, "SERVING");
    tellHealth();
    closers.push(host.subscribe(tellHealth));
    closers.push(probeState(store, (writable) => host.stateIsWritable(writable)));

    const terms = createTerms(store);
    const manager = createManager({
      repository,
      reconciler,
      runtime,
      config,
      capacity: host.capacity,
      host: () => host.usable(),
      assertOpen: () => scheduling.assertSchedulable(),
      clock,
      labels,
    });
    const server = createApiServer({
      routes(router) {
        router.service(
          SandboxService,
          createSandboxService({
            manager,
            repository,
            events: store.events,
            sampler,
            clock,
            explain: createExplainer({ host, sampler, clock }),
          }),
        );
        router.service(
          HostService,
          createHostService({ view, hostStats: feed.hostStats, statsBatch: feed.batch }),
        );
        router.service(EventService, createEventService(store.events, clock));
      },
      health,
      terms,
      metrics: {
        callEnded(method, code, seconds) {
          metrics.calls.add({ method, code });
          metrics.callDuration.observe({ method }, seconds);
        },
        streamsChanged: (delta) => metrics.streamsOpen.add({}, delta),
        connectionRefused: (why) => metrics.connectionsRefused.add({ why }),
      },
      limits: {
        readMaxBytes: config.listen.limits.messageBytes,
        streamsPerCaller: config.listen.limits.streamsPerCaller,
        streamsPerSession: config.listen.limits.streamsPerSession,
        sessions: config.listen.limits.sessions,
      },
      log: log.child("api").pino,
    });
    closers.push(() => server.close({ graceMs: drainMs }));
    for (const listener of listenersOf(config, dev)) {
      const { address } = await server.listen(listener);
      log.info({ address }, "listening");
    }
    if (config.metrics.address !== undefined) {
      const listener = await createMetricsListener({
        address: config.metrics.address,
        render: registry.render,
      });
      closers.push(() => listener.close());
    }
    if (config.scheduler.endpoints.length > 0) {
      const source = createUplinkSource({ store, repository, view, feed, terms });
      registry.onRender(() => {
        metrics.uplinkEventsUnacked.set({}, store.events.newest() - source.lastAcknowledgedSequence());
      });
      const uplink = createUplink({
        source,
        endpoints: config.scheduler.endpoints,
        credentials: schedulerCredentials(config),
        periods: { heartbeatMs: config.scheduler.heartbeatPeriodMs, statsMs: config.scheduler.statsPeriodMs },
        metrics: uplinkMetrics(registry),
        log: log.child("uplink").pino,
      });
      uplink.start();
      closers.push(() => uplink.close());
    }
    void createInventory()
      .get()
      .then((inventory) => host.inventoryIs(inventory));
    log.info(
      {
        host: hostId,
        version,
        count: repository.all().length,
        durationMs: Math.round(performance.now() - began),
      },
      "serving",
    );
    return { close };
  } catch (error) {
    await close();
    throw error;
  }
}

function timeoutsOf({ engine: { timeouts } }: Config) {
  return {
    list: timeouts.listMs,
    inspect: timeouts.inspectMs,
    create: timeouts.createMs,
    start: timeouts.startMs,
    stop: timeouts.stopMs,
    remove: timeouts.removeMs,
    update: timeouts.updateMs,
    pull: timeouts.pullMs,
    pause: timeouts.pauseMs,
    resume: timeouts.pauseMs,
  };
}

function listenersOf({ listen }: Config, dev: boolean): readonly ListenerConfig[] {
  const { tls, devAddress } = listen;
  const group = listen.socketGroup === undefined ? {} : { group: listen.socketGroup };
  return [
    { kind: "unix", path: listen.socket, mode: listen.socketMode, ...group },
    ...(devAddress?.kind === "tcp"
      ? [{ kind: "plain", host: devAddress.host, port: devAddress.port, dev } as const]
      : []),
    ...(tls.address?.kind === "tcp" &&
    tls.certificate !== undefined &&
    tls.key !== undefined &&
    tls.clientCa !== undefined
      ? [
          {
            kind: "tls",
            host: tls.address.host,
            port: tls.address.port,
            tls: { certificate: tls.certificate, key: tls.key, clientCa: tls.clientCa },
          } as const,
        ]
      : []),
  ];
}

/** Read anew at each session, so that renewed files are taken up. */
function schedulerCredentials({ scheduler: { tls } }: Config) {
  const { ca, certificate, key } = tls;
  if (ca === undefined || certificate === undefined || key === undefined) return undefined;
  return () => ({ ca: readFileSync(ca), certificate: readFileSync(certificate), key: readFileSync(key) });
}

/** Tries to write every few seconds, so that a full disk is told before a caller meets it, and its end too. */
function probeState(store: Store, tell: (writable: boolean) => void): () => void {
  const timer = setInterval(() => tell(store.isWritable()), stateProbeMs);
  return () => clearInterval(timer);
}
