// The engine's door on Docker's API. The only room, with its neighbours here, that knows the Docker client.

import type { Agent } from "node:http";
import type { Readable } from "node:stream";
import Docker from "dockerode";
import { SandboxdError } from "../errors.ts";
import { createAgent, dropKept } from "./agent.ts";
import { createAttempt, createCalls, engineError, orFailure, statusOf, unless, type Verb } from "./calls.ts";
import { containerOf, stateOf } from "./decode.ts";
import { diagnose, type EngineDiagnosis } from "./diagnosis.ts";
import { dialCreate, dialLogs } from "./dial.ts";
import { readEvents, timeOf } from "./event-stream.ts";
import { runExec } from "./exec.ts";
import { containerCreateOptions } from "./host-config.ts";
import { createImageStore, type ImageStore } from "./images.ts";
import { isOpen } from "./knock.ts";
import { launchExec } from "./launch.ts";
import { readLogs } from "./log-stream.ts";
import { createEngineNetworks } from "./networks.ts";
import { readNumberedLog } from "./numbered-log.ts";
import { readBack, unenforceable } from "./read-back.ts";
import { lostItsNetwork, reconnect } from "./reconnect.ts";
import {
  type Container,
  type EngineNetworks,
  type LogOptions,
  leastApi,
  type NumberedLogs,
  type Runtime,
  type Waiting,
} from "./runtime.ts";
import { rootFailure, startFailure } from "./start-failure.ts";
import { updateLimits } from "./update.ts";
import { findMismatches, limitWarnings } from "./verify.ts";
import { createVolumes, type Volumes } from "./volumes.ts";

export interface DockerOptions {
  readonly socket: string;
  readonly timeoutsMs: Readonly<Record<Verb, number>>;
  readonly observe: (verb: Verb, outcome: "ok" | "error" | "timeout", seconds: number) => void;
}

export interface DockerRuntime extends Runtime, NumberedLogs, EngineNetworks {
  /** All images of the host, whoever brought them. */
  readonly images: ImageStore;
  sweepVolumes: Volumes["sweep"];
  /** Examines it: two questions. */
  diagnose(options?: Waiting): Promise<EngineDiagnosis>;
}

/** The engine behind a unix socket. Nothing is connected before the first call. */
export function createDockerRuntime({ socket, timeoutsMs, observe }: DockerOptions): DockerRuntime {
  // streams take connections of their own, so they never starve calls
  const agent = createAgent();
  // the client takes an agent, though its types don't say so
  const withAgent: Docker.DockerOptions & { readonly agent: Agent } = {
    socketPath: socket,
    version: `v${leastApi}`,
    agent,
  };
  const docker = new Docker(withAgent);
  const streaming = new Docker({ socketPath: socket, version: `v${leastApi}` });
  // any engine answers a call that names no version
  const { version: _, ...unversioned } = withAgent;
  const stranger = new Docker(unversioned);
  const container = (id: string) => docker.getContainer(id);

  const attempt = createAttempt(createCalls(timeoutsMs, observe), () => dropKept(agent));

  const volumes = createVolumes(docker, attempt);

  const inspectRaw = (id: string, options?: Waiting) =>
    unless(
      [404],
      "inspect",
      attempt("inspect", (abortSignal) => container(id).inspect({ abortSignal }), options),
    );

  const inspect = async (id: string, options?: Waiting): Promise<Container | undefined> => {
    const found = await inspectRaw(id, options);
    return found === undefined ? undefined : containerOf(found);
  };

  const remove = async (id: string, options?: Waiting): Promise<"gone" | "going"> => {
    const ask = async (abortSignal: AbortSignal) => {
      try {
        await container(id).remove({ force: true, v: true, abortSignal });
        return "gone";
      } catch (error) {
        // with force, the engine refuses nothing but what it is already doing
        if (statusOf(error) === 409) return "going";
        throw error;
      }
    };
    return (await unless([404], "remove", attempt("remove", ask, options))) ?? "gone";
  };

  async function* logs(id: string, { follow, tailLines, sinceNanoseconds, stream, signal }: LogOptions) {
    const since = sinceNanoseconds === undefined ? undefined : timeOf(sinceNanoseconds);
    const query = {
      follow,
      stdout: stream !== "stderr",
      stderr: stream !== "stdout",
      timestamps: true,
      tail: tailLines ?? "all",
      ...(since === undefined ? {} : { since }),
    };
    const source = await unless(
      [404],
      "inspect",
      attempt("inspect", () => dialLogs(streaming, id, query)),
    );
    if (source === undefined) return;
    const end = () => source.destroy();
    signal?.addEventListener("abort", end, { once: true });
    try {
      yield* readLogs(source);
    } catch (error) {
      if (!signal?.aborted) throw engineError("list", error);
    } finally {
      signal?.removeEventListener("abort", end);
    }
  }

  return {
    inspect,
    remove,
    async describe(options) {
      const ask = <T>(question: () => Promise<T>) => orFailure("list", attempt("list", question, options));
      const version = await ask(() => stranger.version());
      for (const { modem } of [docker, streaming])
        Object.assign(modem, { version: `v${spokenWith(version)}` });
      const info = await ask(() => docker.info());
      return {
        version: version.Version,
        apiVersion: version.ApiVersion,
        cgroupVersion: info.CgroupVersion === "2" ? 2 : 1,
        cgroupDriver: String(info.CgroupDriver),
        storageDriver: String(info.Driver),
        runtimes: Object.keys((info.Runtimes ?? {}) as object),
        dataRoot: String(info.DockerRootDir),
      };
    },

    diagnose: (options) =>
      orFailure(
        "list",
        attempt("list", () => diagnose(docker), options),
      ),

    async ping(options) {
      await unless(
        [],
        "inspect",
        attempt("inspect", () => docker.ping(), options),
      );
    },

    isOpen: () => isOpen(socket),

    async list(label, options) {
      const filters = JSON.stringify({ label: [label] });
      const found = await unless(
        [],
        "list",
        attempt("list", (abortSignal) => docker.listContainers({ all: true, filters, abortSignal }), options),
      );
      return (found ?? []).map((one) => ({ id: one.Id, labels: one.Labels, state: stateOf(one.State) }));
    },

    async image(reference, options) {
      const found = await unless(
        [404],
        "inspect",
        attempt("inspect", () => docker.getImage(reference).inspect(), options),
      );
      if (found === undefined) return undefined;
      return {
        id: found.Id,
        digests: found.RepoDigests ?? [],
        tags: found.RepoTags ?? [],
        labels: (found.Config?.Labels ?? {}) as Readonly<Record<string, string>>,
        volumes: Object.keys((found.Config?.Volumes ?? {}) as object),
      };
    },

    images: createImageStore(docker, attempt),
    sweepVolumes: volumes.sweep,
    ...createEngineNetworks(docker, attempt),

    async pull(reference, options) {
      try {
        await attempt(
          "pull",
          async (abortSignal) => {
            const stream = (await streaming.pull(reference, { abortSignal })) as Readable;
            await new Promise<void>((resolve, reject) => {
              abortSignal.addEventListener("abort", () => stream.destroy(), { once: true });
              streaming.modem.followProgress(stream, (error) => (error === null ? resolve() : reject(error)));
            });
          },
          options,
        );
      } catch (error) {
        const failure = engineError("pull", error);
        if (failure.reason !== "ENGINE_FAILED") throw failure;
        throw new SandboxdError(
          "IMAGE_UNAVAILABLE",
          `image ${reference} cannot be pulled: ${failure.message}`,
          {
            hint: "pull it on the host, or check the name and the registry",
            cause: error,
          },
        );
      }
    },

    async create(plan, options) {
      const body = containerCreateOptions(plan);
      const made = () => attempt("create", (abortSignal) => dialCreate(docker, body, abortSignal), options);
      const created = await volumes
        .with(plan, () => unless([409], "create", made()), options)
        .catch((error: unknown) => {
          volumes.doubt();
          throw plan.rootBytes === undefined ? error : rootFailure(error, plan.rootBytes);
        });
      if (created === undefined) return "taken";
      const discarded = limitWarnings(created.warnings);
      if (discarded.length === 0) return { id: created.id };
      await remove(created.id);
      throw unenforceable(discarded.join("; "));
    },

    async compare(id, plan, { isNew, ...options }) {
      const found = await inspectRaw(id, options);
      if (found === undefined)
        throw new SandboxdError("ENGINE_FAILED", `container ${id} vanished before its start`);
      const own = { name: found.Name.slice(1), labels: labelsUnder(plan.labelPrefix, found.Config.Labels) };
      const mismatches = findMismatches(isNew ? plan : { ...plan, ...own }, found);
      if (mismatches.length === 0) return volumes.compare(plan, options);
      const fields = mismatches
        .map((one) => `${one.field}: wanted ${one.expected}, got ${one.actual}`)
        .join("; ");
      throw new SandboxdError(
        "HARDENING_MISMATCH",
        `the engine made another container than asked for: ${fields}`,
        {
          hint: "see the engine's own configuration (daemon.json) and its version",
        },
      );
    },

    async start(id, options) {
      const ask = () => attempt("start", (abortSignal) => container(id).start({ abortSignal }), options);
      try {
        await ask().catch(async (error: unknown) => {
          if (!lostItsNetwork(error) || !(await reconnect(docker, attempt, id))) throw error;
          return ask();
        });
      } catch (error) {
        if (statusOf(error) === 304) return; // it runs already, which is what was wanted
        volumes.doubt();
        throw startFailure(error);
      }
    },

    async verify(id, plan, options) {
      try {
        return await readBack(inspect, id, plan, options);
      } catch (error) {
        volumes.doubt();
        throw error;
      }
    },

    update: (found, limits, options) => updateLimits(docker, attempt, found, limits, options),

    async pause(id, options) {
      const paused = attempt("pause", (abortSignal) => container(id).pause({ abortSignal }), options);
      await unless([404, 409], "pause", paused);
    },

    async resume(id, options) {
      const resumed = attempt("resume", (abortSignal) => container(id).unpause({ abortSignal }), options);
      // the engine says 500 for one that is not paused
      await unless([404, 409, 500], "resume", resumed);
    },

    async stop(id, graceSeconds, options) {
      const stopped = attempt("stop", (abortSignal) => container(id).stop({ t: graceSeconds, abortSignal }), {
        ...options,
        extraMs: graceSeconds * 1_000,
      });
      await unless([304, 404], "stop", stopped);
    },

    exec: (id, request, options) => runExec({ docker, streaming, attempt }, id, request, options),
    launch: (id, request, options) => launchExec({ docker, attempt }, id, request, options),

    logs,
    numberedLog(id, options) {
      const pathOf = async () => (await inspectRaw(id, options))?.LogPath;
      return readNumberedLog({ pathOf, logs }, id, options);
    },

    events: (label, options) => readEvents(streaming, label, options),
    close: () => agent.destroy(),
  };
}

function labelsUnder(prefix: string, labels: Readonly<Record<string, string>>) {
  return Object.fromEntries(Object.entries(labels).filter(([key]) => key.startsWith(prefix)));
}

function spokenWith({ MinAPIVersion: least }: { readonly MinAPIVersion?: string }): string {
  const minor = (version: string) => Number(version.split(".")[1]);
  return least !== undefined && minor(least) > minor(leastApi) ? least : leastApi;
}
