// Builds the parts, starts them in order, and stops them in the reverse. Order of the start: lock and open the state, reach the
// engine, adopt, serve, connect to the scheduler. Sandboxes outlive every stop.

import { EventService } from "../gen/sandboxd/v1/event_service_pb.ts";
import { FilesystemService } from "../gen/sandboxd/v1/filesystem_service_pb.ts";
import { HostService } from "../gen/sandboxd/v1/host_service_pb.ts";
import { PortService } from "../gen/sandboxd/v1/port_service_pb.ts";
import { ProcessService } from "../gen/sandboxd/v1/process_service_pb.ts";
import { SandboxService } from "../gen/sandboxd/v1/sandbox_service_pb.ts";
import { TenantService } from "../gen/sandboxd/v1/tenant_service_pb.ts";
import { WorkspaceService } from "../gen/sandboxd/v1/workspace_service_pb.ts";
import { createHealthRegistry } from "./api/health.ts";
import { createStatsFeed } from "./api/stats-feed.ts";
import { createTerms } from "./api/uplink-source.ts";
import type { Config } from "./config/config.ts";
import { hostRulesOf } from "./config/network-values.ts";
import { reloaded } from "./config/reload.ts";
import { createDaemonApi } from "./daemon-api.ts";
import { listenersOf, longestStepMs, samplingOf, timeoutsOf } from "./daemon-config.ts";
import { createHostCare } from "./daemon-host.ts";
import { createInside, prepareToolbox } from "./daemon-inside.ts";
import { createLogShipping } from "./daemon-logs.ts";
import { meterState } from "./daemon-metrics.ts";
import { createNetworking } from "./daemon-network.ts";
import { createPortParts } from "./daemon-ports.ts";
import { createTenancy } from "./daemon-tenants.ts";
import { startUplink } from "./daemon-uplink.ts";
import { createVitals } from "./daemon-vitals.ts";
import { createWorkspaceParts } from "./daemon-workspaces.ts";
import { cgroupPathsAt } from "./engine/cgroup-path.ts";
import { createDockerRuntime } from "./engine/docker.ts";
import { readCapacity } from "./host/capacity.ts";
import { createDoctor, tellFindings } from "./host/doctor/doctor.ts";
import { createHost } from "./host/host.ts";
import { openIdentity } from "./host/identity.ts";
import { readBootId } from "./monitor/host-id.ts";
import { openHostSampler } from "./monitor/host-sampler.ts";
import { readInventory } from "./monitor/inventory.ts";
import { createSampler } from "./monitor/sampler-loop.ts";
import type { Log } from "./observe/log.ts";
import { createMetrics } from "./observe/metrics.ts";
import { createMetricsListener } from "./observe/metrics-listener.ts";
import { watchProcess } from "./observe/process-metrics.ts";
import { createClock } from "./sandbox/clock.ts";
import { createEngineWatch } from "./sandbox/engine-watch.ts";
import { createLabelCodec, hostSelector } from "./sandbox/labels.ts";
import { createLogReader } from "./sandbox/log-reader.ts";
import { createManager } from "./sandbox/manager.ts";
import { cgroupParentOf } from "./sandbox/plan.ts";
import { createReconciler } from "./sandbox/reconciler.ts";
import { createRepository } from "./sandbox/repository.ts";
import { createSweeper } from "./sandbox/sweeper.ts";
import { createVolumeSweep } from "./sandbox/volume-sweep.ts";
import { openStore } from "./store/store.ts";
import { version } from "./version.ts";
import { createWorkspaceRepository } from "./workspace/repository.ts";

export interface Daemon {
  /**
   * Takes up what of a configuration needs no restart, and reads the certificates of its listeners anew. Those that can't be
   * used are an error, and the old ones stay.
   */
  reload(read: Config): Promise<void>;
  /** Whether it still compares itself with the engine, or is stuck. */
  isProgressing(): boolean;
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

/** Starts a daemon. @throws Error when the state directory or a listener cannot be had. */
export async function startDaemon({ config, dev, log }: DaemonOptions): Promise<Daemon> {
  let current = config;
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
    const workspaceRepository = createWorkspaceRepository(store);
    const clock = createClock({ bootId, store });
    closers.push(() => clock.close());
    const labels = createLabelCodec(hostId, key);
    const toolbox = prepareToolbox({ config, hostId, key, log: log.child("toolbox") });
    const host = createHost({
      hostId,
      bootId,
      labels: config.host.labels,
      cgroupParent: config.engine.cgroupParent,
      mountSources: config,
      toolbox: { toolbox: toolbox.version, toolboxAt: toolbox.at },
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
      ...samplingOf(config),
      onError: (error, sandbox) => samplerLog.warn({ sandbox, err: error }, "sample failed"),
    });
    closers.push(() => sampler.close());
    const hostSampler = await openHostSampler({ directories: [config.state.directory] });
    closers.push(() => hostSampler.close());
    const tenancy = createTenancy({
      currentConfig: () => current,
      host,
      store,
      repository,
      sampler,
      clock,
      deleteSandbox: (id, actor) => void manager.delete(id, { actor }).catch(() => undefined),
      workspaceRepository,
      deleteWorkspace: (id) => void parts.workspaces.delete(id).catch(() => undefined),
      holdNetworks: ({ name, policy }) => networking.networks.hold(name, policy.network),
      registry,
      log,
    });
    closers.push(() => tenancy.close());
    const { tenants, groups, metering } = tenancy;
    const networking = createNetworking({
      config,
      currentConfig: () => current,
      ...{ hostId, host, runtime, repository, tenants, registry, log },
    });
    closers.push(() => networking.close());
    const parts = createWorkspaceParts({
      config,
      currentConfig: () => current,
      workspaceRepository,
      repository,
      tenants,
      clock,
      charge: metering.chargeDisk,
      onChange: () => host.changed(),
      registry,
      log,
    });
    closers.push(() => parts.close());
    await parts.start();
    const feed = createStatsFeed({
      sampler,
      hostSampler,
      repository,
      metering,
      onOomKill(id) {
        const record = repository.get(id);
        if (record?.state === "RUNNING") repository.put(record, "SANDBOX_OOM");
      },
      onHostSample: (sample) => care.look(sample),
    });
    closers.push(() => feed.close());

    const vitals = createVitals({
      runtime,
      repository,
      sampler,
      clock,
      host,
      metrics,
      kick: (id) => reconciler.kick(id),
      log: log.child("health"),
    });
    closers.push(() => vitals.close());
    const reconciler = createReconciler({
      runtime,
      repository,
      labels,
      host: () => host.facts(),
      bootId,
      watch: feed.watch,
      vitals,
      clock,
      isEngineAway: () => host.isEngineAway(),
      isDeleted: (instance) => store.isTombstone(instance),
      pullImages: config.images.pull === "missing",
      concurrentStarts: config.capacity.concurrentStarts,
      holdTenant: groups.ensure,
      workspace: parts.workspaces.ready,
      networks: networking.networks,
      log: log.child("reconciler"),
    });
    closers.push(() => reconciler.close());
    const sweeper = createSweeper({ repository, clock, kick: (id) => reconciler.kick(id) });
    closers.push(() => sweeper.close());
    const care = createHostCare({
      config,
      currentConfig: () => current,
      host,
      store,
      repository,
      images: runtime.images,
      sampler,
      clock,
      kick: (id) => reconciler.kick(id),
      registry,
      log,
    });
    closers.push(() => care.close());
    const { scheduling } = care;
    const volumeSweep = createVolumeSweep({
      repository,
      sweep: () => runtime.sweepVolumes(hostSelector(hostId)),
      log: log.child("volumes"),
    });
    closers.push(() => volumeSweep.close());
    const view = { host, scheduling, clock, workspaceCapacity: parts.capacity };
    closers.push(meterState(registry, { repository, host, store, sampler }));
    const health = createHealthRegistry();
    const engineWatch = createEngineWatch({
      runtime,
      repository,
      reconciler,
      store,
      labels,
      clock,
      hostId,
      bootId,
      relistPeriodMs: config.engine.relistPeriodMs,
      orphanGraceMs: config.engine.orphanGraceMs,
      adopt(record, containerId) {
        const facts = host.facts();
        if (facts === undefined || feed.watch.isWatching(record.id)) return;
        const place = { parent: cgroupParentOf(record, facts), version: facts.cgroupVersion };
        feed.watch.began(record.id, cgroupPathsAt({ containerId, ...place }), { isNew: false });
      },
      adoptTenant: tenants.adopt,
      onHealth(found) {
        host.engineIs(found);
        if (found.engine !== undefined) hostSampler.watch(found.engine.dataRoot);
      },
      log: log.child("engine"),
    });
    const tellHealth = () => health.set(SandboxService.typeName, host.isUsable() ? "SERVING" : "NOT_SERVING");
    await networking.hold();
    await engineWatch.start();
    closers.push(() => engineWatch.close());
    await networking.recover();
    // what was lost is rebuilt by now, if the engine told of it
    if (host.isUsable()) toolbox.tidy((version) => repository.all().some((one) => one.toolbox === version));
    health.set("", "SERVING");
    health.set(HostService.typeName, "SERVING");
    health.set(EventService.typeName, "SERVING");
    health.set(TenantService.typeName, "SERVING");
    health.set(WorkspaceService.typeName, "SERVING");
    health.set(ProcessService.typeName, "SERVING");
    health.set(FilesystemService.typeName, "SERVING");
    health.set(PortService.typeName, "SERVING");
    tellHealth();
    closers.push(host.subscribe(tellHealth));

    const logs = createLogReader({ repository, runtime, labels, host: () => host.usable() });
    const shipping = createLogShipping({ hostId, repository, store, reader: logs, registry, log });
    closers.push(() => shipping.close());
    await shipping.configure(config);
    const inside = createInside({
      config,
      runtime,
      repository,
      store,
      host,
      sampler,
      clock,
      metrics,
      log,
    });
    closers.push(() => inside.close());
    inside.processes.recover();
    const portParts = createPortParts({
      ...{ config, key, repository, tenants, registry, log },
      link: inside.link,
      attach: vitals.attach,
    });
    closers.push(() => portParts.close());
    const doctor = createDoctor({
      ...{ runtime, host, groups, workspaces: parts, toolbox, logForwarding: shipping, networks: networking },
      config: () => current,
    });
    const terms = createTerms(store);
    const manager = createManager({
      repository,
      reconciler,
      runtime,
      config: () => current,
      capacity: host.capacity,
      tenants,
      workspaces: parts.workspaces,
      networks: networking.networks,
      host: () => host.usable(),
      assertOpen: () => care.assertOpen(),
      clock,
      labels,
    });
    const server = createDaemonApi({
      listen: config.listen,
      manager,
      logs,
      repository,
      store,
      sampler,
      vitals,
      tenancy,
      parts,
      inside,
      portParts,
      networking,
      hostRules: () => hostRulesOf(current),
      view,
      feed,
      doctor,
      health,
      terms,
      registry,
      log,
    });
    closers.push(() => server.close({ graceMs: drainMs }));
    for (const listener of listenersOf(config, dev)) {
      const { address } = await server.listen(listener);
      log.info({ address }, "listening");
    }
    await portParts.listen();
    if (config.metrics.address !== undefined) {
      const listener = await createMetricsListener({
        address: config.metrics.address,
        render: registry.render,
      });
      closers.push(() => listener.close());
    }
    const { view: network } = networking;
    const told = { store, repository, view, feed, terms, network };
    closers.push(await startUplink({ config, ...told, registry, log }));
    const closing = new AbortController();
    const inventory = readInventory({ signal: closing.signal }).then((read) => host.inventoryIs(read));
    closers.push(() => {
      closing.abort();
      return inventory;
    });
    log.info(
      {
        host: hostId,
        version,
        count: repository.all().length,
        durationMs: Math.round(performance.now() - began),
      },
      "serving",
    );
    // nobody waits for it: a file that it reads may be on a dead disk
    void tellFindings(doctor, { signal: closing.signal, log: log.child("doctor") });
    return {
      async reload(read) {
        current = reloaded(current, read);
        await server.reload();
        await portParts.reload();
        await networking.reload();
        await shipping.configure(current);
      },
      isProgressing: () => performance.now() - engineWatch.lastProgress() < longestStepMs(config),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
