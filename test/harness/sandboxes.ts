// What tests with sandboxes share: the clients of a daemon, small specs, and a look past the daemon at the engine.

import type { DescService, MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import Docker from "dockerode";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { EventService } from "../../gen/sandboxd/v1/event_service_pb.ts";
import { HostService } from "../../gen/sandboxd/v1/host_service_pb.ts";
import {
  type Sandbox,
  type SandboxSpec,
  type SandboxSpecSchema,
  SandboxState,
  type SandboxStatus,
  TransitionReason,
} from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { TenantService } from "../../gen/sandboxd/v1/tenant_service_pb.ts";
import { WorkspaceService } from "../../gen/sandboxd/v1/workspace_service_pb.ts";
import { type Daemon, type DaemonOptions, startDaemon } from "./daemon.ts";
import { baseImage, sharedEngine } from "./engine.ts";

export const mebibyte = 1024 * 1024;
export const tenant = "acme";

/** A spec as a caller writes it. */
export type SpecInit = Exclude<MessageInitShape<typeof SandboxSpecSchema>, SandboxSpec>;

/** What a test needs of a daemon to call it. */
interface Callable {
  readonly hostId: string;
  client<Service extends DescService>(service: Service): Client<Service>;
}

/** A daemon with its clients and the engine's own API. */
export interface TestHost<D extends Callable = Daemon> {
  readonly daemon: D;
  readonly sandboxes: Client<typeof SandboxService>;
  readonly host: Client<typeof HostService>;
  readonly events: Client<typeof EventService>;
  readonly tenants: Client<typeof TenantService>;
  readonly workspaces: Client<typeof WorkspaceService>;
  readonly docker: Docker;
  /** All containers that carry this host's label, whatever their state. */
  containers(): Promise<readonly Docker.ContainerInfo[]>;
  /** Creates a sandbox that runs `script` in a shell, of this id. */
  run(id: string, script: string, resources?: SpecInit["resources"]): Promise<Sandbox>;
  get(id: string): Promise<Sandbox>;
  /** Resolves to the sandbox as soon as `isSo` holds. Fails with what it saw last. */
  until(id: string, isSo: (sandbox: Sandbox) => boolean): Promise<Sandbox>;
  /** What the sandbox's main command wrote so far. */
  output(id: string): Promise<string>;
}

/** A daemon of this machine, whose engine drives cgroups by itself. */
export interface LocalHost extends TestHost {
  /** The path of a sandbox's cgroup in each hierarchy, as its status tells: below its tenant's, below that of all. */
  cgroupOf(status: SandboxStatus): string;
}

export async function startHost(options: DaemonOptions = {}): Promise<LocalHost> {
  const daemon = await startDaemon(options);
  return {
    ...testHost(daemon, options.engine ?? sharedEngine()),
    cgroupOf: ({ uid, containerId }) => `${daemon.cgroupParent}/${uid}/${containerId}`,
  };
}

/** The clients of a daemon that serves, and its engine's. */
export function testHost<D extends Callable>(
  daemon: D,
  engine: string,
  { patienceMs = defaultPatienceMs }: { readonly patienceMs?: number } = {},
): TestHost<D> {
  const docker = new Docker({ socketPath: engine });
  const sandboxes = daemon.client(SandboxService);
  const get = async (id: string) => present((await sandboxes.getSandbox({ sandboxId: id })).sandbox);
  return {
    daemon,
    docker,
    sandboxes,
    host: daemon.client(HostService),
    events: daemon.client(EventService),
    tenants: daemon.client(TenantService),
    workspaces: daemon.client(WorkspaceService),
    containers: () =>
      docker.listContainers({
        all: true,
        filters: JSON.stringify({ label: [`sandboxd.host=${daemon.hostId}`] }),
      }),
    async run(id, script, resources) {
      const { sandbox } = await sandboxes.createSandbox({
        sandboxId: id,
        tenant,
        spec: specOf(script, resources),
      });
      return present(sandbox);
    },
    get,
    until: (id, isSo) => eventually(`sandbox ${id}`, () => get(id), isSo, patienceMs),
    async output(id) {
      let text = "";
      for await (const { data } of sandboxes.streamLogs({ sandboxId: id }))
        text += Buffer.from(data).toString();
      return text;
    },
  };
}

/** A small sandbox: a tenth of a CPU and 32 MiB, unless said otherwise. Ends at once when told to stop. */
export function specOf(script: string, resources: SpecInit["resources"] = {}): SpecInit {
  return {
    image: baseImage,
    command: ["sh", "-c", script],
    stopGrace: { seconds: 0n },
    resources: { cpuMillis: 100n, memoryBytes: BigInt(32 * mebibyte), pids: 32n, ...resources },
  };
}

export const sleeping = "exec sleep 1000";

/** How a call failed, in the words of the contract. A call that succeeds is an error. */
export async function refusalOf(call: Promise<unknown>): Promise<Refusal> {
  try {
    await call;
  } catch (error) {
    return refusal(ConnectError.from(error));
  }
  throw new Error("the call succeeded");
}

export interface Refusal {
  readonly code: string;
  readonly reason: string;
  readonly message: string;
  readonly error: ConnectError;
}

function refusal(error: ConnectError): Refusal {
  const [info] = error.findDetails(ErrorInfoSchema);
  return { code: Code[error.code] ?? "", reason: info?.reason ?? "", message: error.rawMessage, error };
}

/** State, reason and actor of a sandbox, as names. */
export function whereIs(sandbox: Sandbox): { readonly state: string; readonly reason: string } {
  const { state, transition } = present(sandbox.status);
  return {
    state: SandboxState[state],
    reason: TransitionReason[transition?.reason ?? TransitionReason.UNSPECIFIED],
  };
}

export const isIn = (state: SandboxState) => (sandbox: Sandbox) => sandbox.status?.state === state;

/** The value, which a test relies on. */
export function present<T>(value: T | undefined | null): T {
  if (value === undefined || value === null) throw new Error("expected a value");
  return value;
}

const defaultPatienceMs = 20_000;

/** Asks until the answer is so. A failing ask counts as an answer that is not. */
export async function eventually<T>(
  what: string,
  ask: () => T | Promise<T>,
  isSo: (found: T) => boolean,
  timeoutMs = defaultPatienceMs,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      const found = await ask();
      if (isSo(found)) return found;
      last = found;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const seen = JSON.stringify(last instanceof Error ? last.message : last, (_key, value: unknown) =>
    typeof value === "bigint" ? String(value) : value,
  );
  throw new Error(`${what} did not come about within ${timeoutMs} ms; last seen: ${seen}`);
}
