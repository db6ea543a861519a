// Clients of the daemon for the tools: the compiled contract, over the unix socket. Only to be used once the packages
// are installed and dist/ is built.
import { connect } from "node:net";
import path from "node:path";
import { root } from "./process.mjs";

const generated = (file) => import(path.join(root, "dist/gen", file));

/**
 * Opens a channel to the daemon. Returns `{ sandboxes, events, host, tenants, workspaces, processes, files, ports, health, names, close }`: clients of its services, and in
 * `names` the functions that tell an enum value's short name, and the enums that the demonstration needs.
 */
export async function openClient(socket) {
  const { createClient } = await import("@connectrpc/connect");
  const { createGrpcTransport, Http2SessionManager } = await import("@connectrpc/connect-node");
  const { SandboxService } = await generated("sandboxd/v1/sandbox_service_pb.js");
  const { EventService } = await generated("sandboxd/v1/event_service_pb.js");
  const { HostService } = await generated("sandboxd/v1/host_service_pb.js");
  const { TenantService } = await generated("sandboxd/v1/tenant_service_pb.js");
  const { WorkspaceService } = await generated("sandboxd/v1/workspace_service_pb.js");
  const { ProcessService } = await generated("sandboxd/v1/process_service_pb.js");
  const { FilesystemService } = await generated("sandboxd/v1/filesystem_service_pb.js");
  const { PortService } = await generated("sandboxd/v1/port_service_pb.js");
  const { NetworkMode, SandboxState, TransitionReason } = await generated("sandboxd/v1/sandbox_pb.js");
  const { EventType } = await generated("sandboxd/v1/event_pb.js");
  const { RestartMode } = await generated("sandboxd/v1/lifecycle_pb.js");
  const { Health } = await generated("grpc/health/v1/health_pb.js");
  const url = "http://sandboxd";
  const sessionManager = new Http2SessionManager(url, undefined, { createConnection: () => connect(socket) });
  const transport = createGrpcTransport({ baseUrl: url, sessionManager });
  return {
    sandboxes: createClient(SandboxService, transport),
    events: createClient(EventService, transport),
    host: createClient(HostService, transport),
    tenants: createClient(TenantService, transport),
    workspaces: createClient(WorkspaceService, transport),
    processes: createClient(ProcessService, transport),
    files: createClient(FilesystemService, transport),
    ports: createClient(PortService, transport),
    health: createClient(Health, transport),
    names: {
      state: (value) => SandboxState[value],
      reason: (value) => TransitionReason[value],
      eventType: (value) => EventType[value],
      restartMode: RestartMode,
      networkMode: NetworkMode,
    },
    close: () => sessionManager.abort(),
  };
}

/** Whether the daemon behind the client says that it serves. */
export async function isServing(client) {
  try {
    const { status } = await client.health.check({}, { timeoutMs: 1_000 });
    return status === 1;
  } catch {
    return false;
  }
}
