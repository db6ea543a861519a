// Builds the API: which services there are, what each is told from, and what is counted of their calls.

import { EventService } from "../gen/sandboxd/v1/event_service_pb.ts";
import { FilesystemService } from "../gen/sandboxd/v1/filesystem_service_pb.ts";
import { HostService } from "../gen/sandboxd/v1/host_service_pb.ts";
import { PortService } from "../gen/sandboxd/v1/port_service_pb.ts";
import { ProcessService } from "../gen/sandboxd/v1/process_service_pb.ts";
import { SandboxService } from "../gen/sandboxd/v1/sandbox_service_pb.ts";
import { TenantService } from "../gen/sandboxd/v1/tenant_service_pb.ts";
import { WorkspaceService } from "../gen/sandboxd/v1/workspace_service_pb.ts";
import { createEventService } from "./api/event-service.ts";
import { createExplainer } from "./api/explainer.ts";
import { createFilesystemService } from "./api/filesystem-service.ts";
import type { HealthRegistry } from "./api/health.ts";
import type { HostView } from "./api/host-codec.ts";
import { createHostService } from "./api/host-service.ts";
import { createPortService } from "./api/port-service.ts";
import type { Terms } from "./api/ports.ts";
import { createProcessService } from "./api/process-service.ts";
import { createSandboxService } from "./api/sandbox-service.ts";
import { type ApiServer, createApiServer } from "./api/server.ts";
import type { StatsFeed } from "./api/stats-feed.ts";
import { createTenantService } from "./api/tenant-service.ts";
import { createWorkspaceService } from "./api/workspace-service.ts";
import type { Config } from "./config/config.ts";
import type { Inside } from "./daemon-inside.ts";
import type { Networking } from "./daemon-network.ts";
import type { PortParts } from "./daemon-ports.ts";
import type { Tenancy } from "./daemon-tenants.ts";
import type { SandboxVitals } from "./daemon-vitals.ts";
import type { WorkspaceParts } from "./daemon-workspaces.ts";
import type { Doctor } from "./host/doctor/doctor.ts";
import type { Sampler } from "./monitor/sampler-loop.ts";
import type { HostRules } from "./network/violations.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { LogReader } from "./sandbox/log-reader.ts";
import type { Manager } from "./sandbox/manager.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Store } from "./store/store.ts";

export interface DaemonApiOptions {
  readonly listen: Config["listen"];
  readonly manager: Manager;
  readonly logs: LogReader;
  readonly repository: Repository;
  readonly store: Store;
  readonly sampler: Sampler;
  readonly vitals: SandboxVitals;
  readonly tenancy: Tenancy;
  readonly parts: WorkspaceParts;
  readonly inside: Inside;
  readonly portParts: PortParts;
  readonly networking: Networking;
  /** What of this host policies of networks are held against, as it is now. */
  readonly hostRules: () => HostRules;
  readonly view: HostView;
  readonly feed: StatsFeed;
  readonly doctor: Doctor;
  readonly health: HealthRegistry;
  readonly terms: Terms;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export function createDaemonApi(options: DaemonApiOptions): ApiServer {
  const { manager, repository, store, sampler, vitals, tenancy, parts, networking, hostRules, view, feed } =
    options;
  const { clock } = view;
  const { limits } = options.listen;
  const { metrics } = options.registry;
  return createApiServer({
    routes(router) {
      router.service(
        SandboxService,
        createSandboxService({
          manager,
          logs: options.logs,
          repository,
          events: store.events,
          sampler,
          metering: tenancy.metering,
          clock,
          explain: createExplainer({
            ...vitals,
            ...tenancy,
            workspaces: parts.workspaceRepository,
            usageWatch: parts.usageWatch,
            network: networking.view,
            host: view.host,
            sampler,
            clock,
          }),
          current: vitals.current,
          attach: vitals.attach,
          network: networking.view,
        }),
      );
      router.service(
        HostService,
        createHostService({
          view,
          hostStats: feed.hostStats,
          statsBatch: feed.batch,
          doctor: options.doctor,
        }),
      );
      router.service(EventService, createEventService(store.events, clock));
      const { attach } = vitals;
      const { processes, files } = options.inside;
      router.service(ProcessService, createProcessService({ processes, attach }));
      router.service(FilesystemService, createFilesystemService({ files, attach }));
      router.service(PortService, createPortService({ ...options.portParts, attach }));
      const { workspaceRepository } = parts;
      router.service(
        TenantService,
        createTenantService({ ...tenancy, repository, workspaceRepository, hostRules }),
      );
      router.service(
        WorkspaceService,
        createWorkspaceService({ ...parts, repository: workspaceRepository, clock }),
      );
    },
    health: options.health,
    terms: options.terms,
    metrics: {
      callEnded(method, code, seconds) {
        metrics.calls.add({ method, code });
        metrics.callDuration.observe({ method }, seconds);
      },
      streamsChanged: (delta) => metrics.streamsOpen.add({}, delta),
      connectionRefused: (why) => metrics.connectionsRefused.add({ why }),
    },
    limits: {
      readMaxBytes: limits.messageBytes,
      streamsPerCaller: limits.streamsPerCaller,
      streamsPerSession: limits.streamsPerSession,
      sessions: limits.sessions,
    },
    log: options.log.child("api").pino,
  });
}
