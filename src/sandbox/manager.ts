// What callers can do to sandboxes: each verb checks, changes what is wanted in one transaction, wakes the reconciler, and
// waits for what comes of it.

import { randomBytes, randomUUID } from "node:crypto";
import type { Config } from "../config/config.ts";
import { proxiesOf } from "../config/network-values.ts";
import type { Container, Runtime } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import { checkMode } from "../network/allowed.ts";
import { type Proxies, proxyOf } from "../network/effective.ts";
import type { NetworkMode, NetworkPlace, SandboxNetworkSpec } from "../network/policy.ts";
import { proxyEnvironment } from "../network/proxy.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { Workspaces } from "../workspace/workspaces.ts";
import type { Capacity } from "./admission.ts";
import type { Clock } from "./clock.ts";
import { checkImage } from "./image-policy.ts";
import type { LabelCodec } from "./labels.ts";
import { checkBlockIo, createLifecycle, type Lifecycle } from "./lifecycle.ts";
import { lookUp } from "./lookup.ts";
import { changedNetwork, type NetworkChange } from "./network-spec.ts";
import { type HostFacts, liveLimits } from "./plan.ts";
import type { Reconciler } from "./reconciler.ts";
import { isToLive, type Resources, type SandboxRecord, type Spec } from "./record.ts";
import type { Repository } from "./repository.ts";
import { createRoom } from "./room.ts";
import {
  type Asker,
  changedResources,
  checkLabels,
  effectiveSpec,
  hashOfRequest,
  isRepeated,
  type SpecRequest,
} from "./spec.ts";
import { type Asking, createSubjects } from "./subject.ts";

export interface CreateRequest extends Asking {
  /** Empty: one is made. */
  readonly id: string;
  readonly tenant: string;
  readonly spec: SpecRequest;
  readonly wait: boolean;
}

export interface UpdateRequest extends Asking, NetworkChange {
  readonly id: string;
  readonly resources: Partial<Resources>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly generation?: number;
}

export interface Manager extends Lifecycle {
  create(request: CreateRequest): Promise<SandboxRecord>;
  get(id: string): SandboxRecord;
  update(request: UpdateRequest): Promise<SandboxRecord>;
}

/** What the verbs ask of the networks of tenants. */
export interface ManagerNetworks {
  /** @throws SandboxdError NETWORK_UNAVAILABLE while sandboxes cannot have the mode here. */
  assertUsable(mode: NetworkMode): void;
  /** The place of a new sandbox; undefined for one that has no network. @throws SandboxdError ADDRESS_EXHAUSTED. */
  choose(tenant: string, mode: NetworkMode): NetworkPlace | undefined;
  /** Has the kernel hold what the record says. Rejects with NETWORK_UNAVAILABLE or LIMIT_UNENFORCEABLE. */
  apply(record: SandboxRecord): Promise<void>;
}

export interface ManagerOptions {
  readonly repository: Repository;
  readonly reconciler: Reconciler;
  readonly runtime: Runtime;
  /** As it is now: a reload may change it. */
  readonly config: () => Config;
  readonly capacity: Capacity;
  readonly tenants: Pick<Tenants, "assertOpen" | "ensure" | "policyOf">;
  readonly workspaces: Pick<Workspaces, "assertMountable" | "all">;
  readonly networks: ManagerNetworks;
  /** @throws SandboxdError ENGINE_UNAVAILABLE while the engine cannot be used. */
  readonly host: () => HostFacts;
  /** @throws SandboxdError HOST_CORDONED or HOST_PRESSURE while the host takes no more work. */
  readonly assertOpen: () => void;
  readonly clock: Clock;
  readonly labels: LabelCodec;
}

export function createManager({
  repository,
  reconciler,
  runtime,
  config,
  capacity,
  tenants,
  workspaces,
  networks,
  host,
  assertOpen,
  clock,
  labels: codec,
}: ManagerOptions): Manager {
  const subjects = createSubjects({ repository, clock });
  const quotaOf = (tenant: string) => tenants.policyOf(tenant).quota;
  const room = createRoom({ repository, capacity, quotaOf, workspaces: workspaces.all });
  const askerOf = (tenant: string): Asker => {
    const { limitRange, network } = tenants.policyOf(tenant);
    return { tenant, limitRange, network };
  };
  const { get, notFound, rested, started, kept, checkGeneration, refuseIfGoing } = subjects;

  /** Its container, if it has one. */
  async function containerOf(record: SandboxRecord, signal?: AbortSignal): Promise<Container | undefined> {
    const waiting = signal === undefined ? {} : { signal };
    const found = await lookUp(record, { runtime, labels: codec, hostId: host().hostId, ...waiting });
    return found.kind === "own" ? found.container : undefined;
  }

  return {
    ...createLifecycle({
      ...{ repository, reconciler, subjects, room, host, assertOpen, clock },
      assertConnectable({ spec: { networkMode }, tenant }) {
        checkMode(networkMode, askerOf(tenant));
        networks.assertUsable(networkMode);
      },
    }),
    get,
    async create({ id: asked, tenant, spec: request, wait, actor, signal }) {
      const existing = asked === "" ? undefined : repository.get(asked);
      if (existing !== undefined) {
        if (!isRepeated(existing, tenant, request) || existing.wanted === "DELETED") {
          throw new SandboxdError(
            "SANDBOX_ALREADY_EXISTS",
            `sandbox_id "${asked}" is in use by another request`,
            {
              hint: "use another id, or delete that sandbox first",
              metadata: { sandbox_id: asked },
            },
          );
        }
        return kept(wait ? await rested(asked, existing.instance, signal) : existing);
      }
      tenants.assertOpen(tenant);
      const asker = askerOf(tenant);
      const spec = withProxy(effectiveSpec(request, config(), asker), asker, proxiesOf(config()));
      checkImage(spec.image, allowedImages(config()));
      assertOpen();
      checkBlockIo(spec.resources, host());
      if (spec.workspace !== undefined) workspaces.assertMountable(spec.workspace.workspaceId, tenant);
      networks.assertUsable(spec.networkMode);
      room.admitNew(tenant, spec);
      const place = networks.choose(tenant, spec.networkMode);
      const id = asked || `sb-${randomBytes(8).toString("hex")}`;
      const timeMs = Date.now();
      const acceptedAtMs = clock.nowMs();
      const { ttlMs } = spec.lifetime;
      const { uid } = tenants.ensure(tenant);
      const toolbox = host().toolbox?.();
      const record: SandboxRecord = {
        id,
        instance: randomUUID(),
        tenant,
        uid,
        isInTenantCgroup: true,
        ...(toolbox === undefined ? {} : { toolbox }),
        spec,
        ...(place === undefined ? {} : { place }),
        requestHash: hashOfRequest(tenant, request),
        generation: 1,
        createdAtMs: timeMs,
        acceptedAtMs,
        ...(ttlMs === undefined ? {} : { expiresAtMs: acceptedAtMs + ttlMs }),
        wanted: "RUNNING",
        state: "PENDING",
        transition: {
          from: undefined,
          to: "PENDING",
          reason: "REQUESTED",
          message: "accepted",
          actor,
          timeMs,
        },
        stopGraceMs: spec.stopGraceMs,
        containerId: "",
        imageId: "",
        imageVolumes: [],
        endedRun: "",
        bootId: "",
      };
      repository.insert(record);
      reconciler.kick(id, { fresh: true });
      return wait ? started(id, record.instance, signal) : kept(record);
    },

    async update({ id, resources: change, labels, generation, signal, ...connection }) {
      const { instance } = get(id);
      if (labels !== undefined) checkLabels(labels, "labels");
      return reconciler.between(id, async () => {
        const record = get(id);
        if (record.instance !== instance) throw notFound(id);
        refuseIfGoing(record);
        checkGeneration(record, generation);
        const asker = askerOf(record.tenant);
        const resources = changedResources(record.spec.resources, change, config(), asker);
        const network = isNamed(connection)
          ? changedNetwork(record.spec, connection, config(), asker)
          : undefined;
        const changed = (now: SandboxRecord): SandboxRecord => ({
          ...now,
          spec: { ...withNetwork(now.spec, network), resources, labels: labels ?? now.spec.labels },
          generation: now.generation + 1,
        });
        if (isToLive(record)) room.admit(record, resources);
        try {
          return await room.during(id, resources, async () => {
            if (Object.keys(change).length > 0) {
              const container = await containerOf(record, signal);
              if (container !== undefined) await runtime.update(container, liveLimits(resources));
            }
            // between steps of its own queue only what is wanted, and its lease, can have changed meanwhile
            if (network !== undefined) await networks.apply(changed(get(id)));
            const next = changed(get(id));
            repository.put(next, "SANDBOX_UPDATED");
            return await kept(next);
          });
        } catch (error) {
          // the container may have got limits that the record has not
          reconciler.kick(id);
          if (network !== undefined) await networks.apply(get(id)).catch(() => undefined);
          throw error;
        }
      });
    },
  };
}

const isNamed = ({ egress, networkLimits }: NetworkChange) =>
  egress !== undefined || networkLimits !== undefined;

/** What is not in `network` is the tenant's. Undefined: as it is. */
function withNetwork(spec: Spec, network: SandboxNetworkSpec | undefined): Spec {
  if (network === undefined) return spec;
  const { egress: _, networkLimits: __, ...others } = spec;
  return { ...others, ...network };
}

/** With what programs are told of the proxy that is the tenant's only way out, unless the caller tells them something else. */
function withProxy(spec: Spec, { network }: Asker, proxies: Proxies): Spec {
  const proxy = spec.networkMode === "EGRESS" ? proxyOf(network, proxies) : undefined;
  return proxy === undefined ? spec : { ...spec, env: { ...proxyEnvironment(proxy), ...spec.env } };
}

/** Those of templates are allowed by being there. */
function allowedImages({ images, templates }: Config): readonly string[] {
  return [...images.allow, ...Object.values(templates).flatMap(({ image }) => image ?? [])];
}
