// Makes a sandbox run: binds its image, creates and starts its container, and reads the limits back from the kernel.

import type { BindMount, ContainerPlan } from "../engine/container-plan.ts";
import type { Container, Runtime } from "../engine/runtime.ts";
import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "./clock.ts";
import type { Settlement } from "./decide.ts";
import { failed } from "./ending.ts";
import { untested } from "./health/verdict.ts";
import { createImageBinding } from "./image-binding.ts";
import type { LabelCodec } from "./labels.ts";
import { workspacePath } from "./mount-spec.ts";
import { type HostFacts, planOf } from "./plan.ts";
import { createSlots } from "./queue.ts";
import { actors, type SandboxRecord, type TransitionReason } from "./record.ts";
import type { Repository } from "./repository.ts";
import { underPolicy } from "./restart.ts";
import type { Touches } from "./touches.ts";
import { failureReason, moved, progress, starting, type Why } from "./transition.ts";
import type { Watch } from "./watch.ts";

export interface StarterOptions {
  readonly clock: Clock;
  readonly runtime: Runtime;
  readonly repository: Repository;
  readonly labels: LabelCodec;
  /** @throws SandboxdError ENGINE_UNAVAILABLE while the engine was never reached. */
  readonly hostFacts: () => HostFacts;
  readonly bootId: string;
  readonly watch: Watch;
  readonly pullImages: boolean;
  readonly concurrentStarts: number;
  /** Records a transition. */
  readonly settle: (record: SandboxRecord, settlement: Settlement) => SandboxRecord;
  readonly touches: Touches;
  /** A container was made for it, which the record tells only once it runs. */
  readonly onMade: (id: string, containerId: string) => void;
  /** Has the cgroups above a tenant's sandboxes hold. Rejects with LIMIT_UNENFORCEABLE. */
  readonly holdTenant: (tenant: string) => Promise<void>;
  /** Has a tenant's workspace there to be mounted. Rejects with WORKSPACE_UNAVAILABLE, or with WORKSPACE_IN_USE while it has to wait. */
  readonly workspace: (
    id: string,
    tenant: string,
  ) => Promise<{ readonly path: string; readonly identity: BindMount["identity"] }>;
  /** Default: no sandbox has a network. */
  readonly networks?: StarterNetworks;
  readonly log: Log;
}

/** What a start asks of the networks of tenants. */
export interface StarterNetworks {
  /**
   * Has its network there, and resolves to its place in it; undefined for a sandbox without one. Its rules have to be `held` before it starts. Both
   * reject with NETWORK_UNAVAILABLE, the first with ADDRESS_EXHAUSTED, too.
   */
  prepare(
    record: SandboxRecord,
  ): Promise<{ readonly place: SandboxRecord["place"]; readonly held: Promise<void> } | undefined>;
  /** Bounds the traffic of one whose container was started. Rejects with LIMIT_UNENFORCEABLE. */
  bound(record: SandboxRecord, containerId: string): Promise<void>;
  /** Its container could not be had: what is known of its network may be wrong. */
  doubt(tenant: string): void;
}

export interface Starter {
  /**
   * Creates the container if there is none, and starts it. Resolves to whether it was seen to run and told so; if not, the next
   * look has to tell. A failure that is the sandbox's own settles it as FAILED.
   */
  start(id: string, existing: Container | undefined): Promise<boolean>;
  /** Takes a running container as the sandbox's once its limits were read back; result and failure are as of start(). */
  verify(record: SandboxRecord, container: Container, why: Why): Promise<boolean>;
}

/** What a start has found out for its sandbox. */
type Found = Pick<SandboxRecord, "imageId" | "imageVolumes" | "place">;

interface Made {
  readonly containerId: string;
  readonly plan: ContainerPlan;
  /** What it was made for. */
  readonly from: SandboxRecord;
}

export function createStarter(options: StarterOptions): Starter {
  const { runtime, repository, labels, watch, settle, touches, networks, log } = options;
  const slots = createSlots(options.concurrentStarts);
  const images = createImageBinding(options);

  const planFor = (record: SandboxRecord, workspace: BindMount | undefined) =>
    planOf(record, options.hostFacts(), labels, workspace);

  /** Its workspace, there to be mounted; undefined if it is to have none. */
  async function workspaceOf({ spec, tenant }: SandboxRecord): Promise<BindMount | undefined> {
    if (spec.workspace === undefined) return undefined;
    const { workspaceId, readOnly } = spec.workspace;
    const { path: source, identity } = await options.workspace(workspaceId, tenant);
    return { kind: "bind", source, target: workspacePath, readOnly, identity };
  }

  async function networkOf(record: SandboxRecord) {
    const network = await networks?.prepare(record);
    // nobody waits for it if something else fails before
    network?.held.catch(() => undefined);
    return network;
  }

  /** Waits for a slot and does the job in it, unless the sandbox was told to stop or go meanwhile. */
  function inSlot<T>(
    id: string,
    job: (record: SandboxRecord) => Promise<T>,
    options?: { readonly ahead: boolean },
  ): Promise<T | undefined> {
    return slots.run(async () => {
      const record = repository.get(id);
      return record?.wanted === "RUNNING" ? job(record) : undefined;
    }, options);
  }

  /** Resolves to its new container; undefined if its name is taken. */
  async function make(record: SandboxRecord, workspace: BindMount | undefined): Promise<Made | undefined> {
    // told once, however often it is tried; what image it is of, its labels tell
    const isTold =
      record.state === "CREATING" && record.place?.address === repository.get(record.id)?.place?.address;
    const from = isTold ? record : settle(record, starting("creating its container"));
    const plan = planFor(from, workspace);
    const created = await runtime.create(plan);
    // by a create whose answer was lost, by an earlier instance, or by someone else
    return created === "taken" ? undefined : { containerId: created.id, from, plan };
  }

  /** Resolves to the container that runs now; undefined if the next look has to tell. */
  async function launch(
    id: string,
    found: Found,
    existing: Container | undefined,
    workspace: BindMount | undefined,
    held: Promise<void> | undefined,
    onMade: (containerId: string) => void,
  ): Promise<{ readonly containerId: string; readonly startedAtMs: number } | undefined> {
    let made: Made | undefined;
    if (existing === undefined) {
      made = await inSlot(id, (record) => make({ ...record, ...found }, workspace));
      if (made === undefined) return undefined;
      onMade(made.containerId);
    }
    const containerId = made?.containerId ?? existing?.id;
    const now = repository.get(id);
    if (containerId === undefined || now?.wanted !== "RUNNING") return undefined;
    const { imageId, imageVolumes } = found;
    const record =
      existing === undefined || now.state === "CREATING"
        ? now
        : settle({ ...now, imageId, imageVolumes }, starting("starting its container"));
    // as it is now, whoever made it: an answer to its creation may have been lost, and its removal have failed
    const plan = record === made?.from ? made.plan : planFor(record, workspace);
    await Promise.all([runtime.compare(containerId, plan, { isNew: existing === undefined }), held]);
    const start = async () => {
      touches.forget(containerId);
      await touches.byUs("start", containerId, () => runtime.start(containerId));
      return { containerId, startedAtMs: Date.now() };
    };
    // what was created is to run before more is created
    return inSlot(id, start, { ahead: true });
  }

  async function verified(
    before: SandboxRecord,
    containerId: string,
    startedAtMs: number,
    why: Why,
    workspace: BindMount | undefined,
  ): Promise<boolean> {
    const [cgroup] = await Promise.all([
      runtime.verify(containerId, planFor(before, workspace)),
      networks?.bound(before, containerId),
    ]);
    if (cgroup === undefined) return false; // it ended already
    const record = repository.unmoved(before);
    if (record === undefined) return false; // it was told something else meanwhile
    watch.began(record.id, cgroup, { isNew: record.state === "CREATING" });
    if (record.state === "RUNNING" && record.bootId === options.bootId) return true;
    repository.put(
      {
        ...moved(record, { state: "RUNNING", ...why, containerId }),
        imageId: before.imageId,
        imageVolumes: before.imageVolumes,
        ...(before.place === undefined ? {} : { place: before.place }),
        bootId: options.bootId,
        startedAtMs,
        // a pause interrupts a run, and does not end it
        ...(record.state === "PAUSED" || record.state === "RESUMING"
          ? {}
          : {
              ranSinceMs: options.clock.nowMs(),
              ...(record.spec.healthCheck === undefined ? {} : { health: untested }),
            }),
        wanted: "RUNNING",
      },
      "SANDBOX_STATE_CHANGED",
    );
    return true;
  }

  /**
   * Does a step whose failure, if it is the sandbox's own, makes it FAILED. A container that may not run, or cannot, is
   * removed: what it was for is in the record. Resolves to what the step does, and to false after such a failure.
   */
  async function orFailed(
    id: string,
    containerId: () => string | undefined,
    step: () => Promise<boolean>,
    isFinal: (reason: TransitionReason) => boolean = () => true,
  ): Promise<boolean> {
    try {
      return await step();
    } catch (error) {
      const tenant = repository.get(id)?.tenant;
      if (tenant !== undefined) networks?.doubt(tenant);
      const reason = failureReason(error);
      if (reason === undefined || !isFinal(reason)) throw error;
      log.warn({ sandbox: id, reason, err: messageOf(error) }, "sandbox cannot run");
      const unusable = containerId();
      if (unusable !== undefined) await touches.byUs("end", unusable, () => runtime.remove(unusable));
      const now = repository.get(id);
      if (now?.wanted !== "RUNNING") return false;
      const end = { ...failed(reason, messageOf(error), actors.policy), containerId: "" };
      // the first start is its caller's to try again
      settle(now, now.restarts === undefined ? end : underPolicy(now, end, 0, options.clock.nowMs()));
      return false;
    }
  }

  return {
    async start(id, existing) {
      let containerId = existing?.id;
      return orFailed(
        id,
        () => containerId,
        async () => {
          const accepted = repository.get(id);
          if (accepted?.wanted !== "RUNNING") return false;
          // the intent is on disk, the tenant held and the workspace and the network there, before the engine is asked for anything that lasts
          const [record, workspace, network] = await Promise.all([
            existing === undefined ? images.bind(accepted) : bound(accepted, existing),
            workspaceOf(accepted),
            networkOf(accepted),
            options.holdTenant(accepted.tenant),
            repository.durable(),
          ]);
          const found = {
            imageId: record.imageId,
            imageVolumes: record.imageVolumes,
            ...(network?.place === undefined ? {} : { place: network.place }),
          };
          const running = await launch(id, found, existing, workspace, network?.held, (made) => {
            containerId = made;
            options.onMade(id, made);
          });
          const started = repository.get(id);
          if (running === undefined || started?.wanted !== "RUNNING") return false;
          return verified(
            { ...started, ...found },
            running.containerId,
            running.startedAtMs,
            progress,
            workspace,
          );
        },
      );
    },
    async verify(record, container, why) {
      const { id: containerId, startedAt } = container;
      const startedAtMs = Date.parse(startedAt);
      return orFailed(
        record.id,
        () => containerId,
        async () =>
          verified(
            bound(record, container),
            containerId,
            Number.isNaN(startedAtMs) ? Date.now() : startedAtMs,
            why,
            await workspaceOf(record),
          ),
        // what was told as running is ended for a limit that does not hold, not because the engine could not say
        (reason) => record.state === "CREATING" || reason === "LIMIT_UNENFORCED",
      );
    },
  };

  /** A container that exists is of the image that its labels say, also where the record was not yet told. */
  function bound(record: SandboxRecord, container: Container): SandboxRecord {
    if (record.imageId !== "") return record;
    const identity = labels.decode(container.labels);
    return identity === undefined
      ? record
      : { ...record, imageId: identity.imageId, imageVolumes: identity.imageVolumes };
  }
}
