// Connections to the toolbox of a sandbox, to the keepers of its processes and to its forwarder: found through a process of the container, started by the
// engine where none answers. What is found once is kept as long as the sandbox runs, so that a request costs one connection.

import { closeSync } from "node:fs";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Runtime, Waiting } from "../engine/runtime.ts";
import { isOutOfDescriptors, messageOf, SandboxdError } from "../errors.ts";
import { cgroupParentOf, type HostFacts } from "../sandbox/plan.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import { orAborted } from "../waiting.ts";
import { type Connection, connectionOver, type PortLink } from "./connection.ts";
import { connectIn, openRunDirectory, type RunDirectory } from "./place.ts";
import { frame, request } from "./protocol.ts";

export interface LinkOptions {
  readonly repository: Pick<Repository, "get" | "subscribe">;
  readonly runtime: Pick<Runtime, "launch">;
  /** @throws SandboxdError ENGINE_UNAVAILABLE while the engine was never reached. */
  readonly facts: () => HostFacts;
  /** How long the toolbox may take to answer. Default: 10 s. */
  readonly patienceMs?: number;
}

export interface ToolboxLink extends PortLink {
  close(): void;
}

const serverSocket = "toolbox.sock";
const forwarderSocket = "forward.sock";
const program = "/.sandboxd/toolbox";
const servedAt = `/.sandboxd/run/${serverSocket}`;

const defaultPatienceMs = 10_000;

/** Directories that are kept open at most: one descriptor for each sandbox that was used last. */
const mostKept = 256;

interface Kept extends RunDirectory {
  readonly run: string;
}

export function createLink(options: LinkOptions): ToolboxLink {
  const { repository, runtime, facts, patienceMs = defaultPatienceMs } = options;
  /** The one used last is the last. */
  const kept = new Map<string, Kept>();
  const starts = new Map<string, Promise<void>>();

  function drop(id: string): void {
    const directory = kept.get(id);
    if (directory === undefined) return;
    kept.delete(id);
    closeSync(directory.descriptor);
  }

  const unsubscribe = repository.subscribe((id) => {
    const directory = kept.get(id);
    if (directory !== undefined && directory.run !== runOf(repository.get(id))) drop(id);
  });

  function running(id: string): SandboxRecord {
    const record = repository.get(id);
    if (record === undefined) {
      throw new SandboxdError("SANDBOX_NOT_FOUND", `there is no sandbox "${id}"`, {
        metadata: { sandbox_id: id },
      });
    }
    if (record.state !== "RUNNING") throw notRunning(record, `is ${record.state}`);
    if (record.toolbox === undefined) throw withoutToolbox(id);
    return record;
  }

  /** Found anew: the kept one may be of an earlier run, which the daemon has not heard the end of. */
  function find(record: SandboxRecord): RunDirectory {
    drop(record.id);
    const { id, uid, containerId, toolbox = "" } = record;
    const host = facts();
    const place = { containerId, parent: cgroupParentOf(record, host), version: host.cgroupVersion };
    const identity = host.toolboxAt?.(toolbox).identity;
    const found = identity === undefined ? undefined : openRunDirectory({ place, identity, uid });
    if (found === undefined) {
      if (repository.get(id)?.containerId !== containerId) throw notRunning(record, "has just ended");
      throw unavailable(`sandbox "${id}" has no process that sees it`, "try again; it may be ending");
    }
    kept.set(id, { ...found, run: runOf(record) });
    const [oldest] = kept.keys();
    if (kept.size > mostKept && oldest !== undefined) drop(oldest);
    return found;
  }

  /** Tries the directory that is known; then, if nobody answers there, that which is found anew. */
  async function reach(record: SandboxRecord, name: string): Promise<Socket | "absent" | "other" | "busy"> {
    const known = kept.get(record.id);
    try {
      if (known !== undefined) {
        kept.delete(record.id);
        kept.set(record.id, known);
        const reached = await connectIn(known, name, record.uid);
        if (typeof reached !== "string" || reached === "busy") return reached;
      }
      return await connectIn(find(record), name, record.uid);
    } catch (error) {
      if (error instanceof SandboxdError) throw error;
      const hint = isOutOfDescriptors(error) ? "raise LimitNOFILE of the daemon" : "try again";
      throw unavailable(`it cannot be reached in sandbox "${record.id}": ${messageOf(error)}`, hint);
    }
  }

  /** One at a time; who comes meanwhile waits for the same. */
  function start({ id, uid, containerId }: SandboxRecord): Promise<void> {
    const known = starts.get(containerId);
    if (known !== undefined) return known;
    const command = [program, "serve", servedAt];
    const started = runtime
      .launch(containerId, { command, user: `${uid}:${uid}`, workingDir: "/" })
      .catch((error: unknown) => {
        throw saidOf(id, error);
      })
      .finally(() => starts.delete(containerId));
    starts.set(containerId, started);
    return started;
  }

  async function connectToServer(id: string, { signal }: Waiting): Promise<Socket> {
    let deadline = performance.now() + patienceMs;
    let isStarted = false;
    for (let pauseMs = 1; ; pauseMs = Math.min(50, pauseMs * 2)) {
      signal?.throwIfAborted();
      const record = running(id);
      const reached = await reach(record, serverSocket);
      if (typeof reached !== "string") return reached;
      if (reached !== "busy" && !isStarted) {
        await orAborted(start(record), signal);
        isStarted = true;
        // how long the engine took has bounds of its own
        deadline = performance.now() + patienceMs;
        continue;
      }
      if (performance.now() > deadline) throw silent(id, reached);
      await orAborted(sleep(pauseMs), signal);
    }
  }

  /** Whether a request is taken at all: a program of the sandbox's may hold the socket, or have stopped who does. */
  async function isServed(id: string): Promise<boolean> {
    const socket = await connectToServer(id, {});
    const connection = connectionOver(socket);
    const timer = setTimeout(() => connection.close(), patienceMs);
    try {
      await connection.send(request().frame(frame.ping));
      return (await connection.receive())?.type === frame.pong;
    } finally {
      clearTimeout(timer);
      connection.close();
    }
  }

  /** To a worker that stays, which says at once how it is. */
  async function openStaying(id: string, name: string, { signal }: Waiting): Promise<Connection | undefined> {
    signal?.throwIfAborted();
    const reached = await reach(running(id), name);
    if (reached === "absent") return undefined;
    if (typeof reached === "string") throw silent(id, reached);
    const refused = () => silent(id, "busy");
    return patient(connectionOver(reached), { patienceMs, isServed: async () => false, refused });
  }

  return {
    async open(id, waiting = {}) {
      const connection = connectionOver(await connectToServer(id, waiting));
      return patient(connection, {
        patienceMs,
        isServed: () => isServed(id),
        refused: () => silent(id, "busy"),
      });
    },
    async openProcess(id, processId, waiting = {}) {
      if (!/^[A-Za-z0-9._-]+$/.test(processId)) {
        running(id);
        return undefined;
      }
      return openStaying(id, `p-${processId}.sock`, waiting);
    },
    openForwarder: (id, waiting = {}) => openStaying(id, forwarderSocket, waiting),
    close() {
      unsubscribe();
      for (const id of [...kept.keys()]) drop(id);
    },
  };
}

/** Tells one run of a sandbox from another; undefined where none runs. */
function runOf(record: SandboxRecord | undefined): string {
  if (record?.state !== "RUNNING" && record?.state !== "PAUSED") return "";
  return `${record.containerId} ${record.startedAtMs}`;
}

interface Patience {
  readonly patienceMs: number;
  readonly isServed: () => Promise<boolean>;
  readonly refused: () => SandboxdError;
}

/**
 * The connection, of which the first answer is not waited for in vain: the kernel takes connections for a listener that was stopped. What
 * takes long goes on as long as the server answers others.
 */
function patient(connection: Connection, { patienceMs, isServed, refused }: Patience): Connection {
  let hasAnswered = false;

  async function first(): ReturnType<Connection["receive"]> {
    const answer = connection.receive();
    // when it is given up, nobody looks at it any more
    answer.catch(() => undefined);
    for (;;) {
      const timer = new AbortController();
      const passed = sleep(patienceMs, "passed" as const, { signal: timer.signal }).catch(
        () => "passed" as const,
      );
      const got = await Promise.race([answer, passed]).finally(() => timer.abort());
      if (got !== "passed") return got;
      const isAlive = await isServed().catch(() => false);
      if (isAlive) continue;
      connection.close();
      throw refused();
    }
  }

  return {
    ...connection,
    received() {
      const frame = connection.received();
      hasAnswered ||= frame !== undefined;
      return frame;
    },
    async receive() {
      if (hasAnswered) return connection.receive();
      const answer = await first();
      hasAnswered = true;
      return answer;
    },
  };
}

function notRunning({ id, state }: SandboxRecord, what: string): SandboxdError {
  const hint = state === "PAUSED" ? "resume it first" : "start it first";
  return new SandboxdError("INVALID_STATE", `sandbox "${id}" ${what}; nothing can be done inside`, {
    hint,
    metadata: { state },
  });
}

function withoutToolbox(id: string): SandboxdError {
  return new SandboxdError("TOOLBOX_UNAVAILABLE", `sandbox "${id}" has no toolbox`, {
    hint: "it was made by an earlier release, or while this host had none (CheckHost tells): delete and create it again",
    metadata: { sandbox_id: id },
  });
}

function unavailable(what: string, hint: string): SandboxdError {
  return new SandboxdError("TOOLBOX_UNAVAILABLE", `the toolbox: ${what}`, { hint });
}

function silent(id: string, found: "absent" | "other" | "busy"): SandboxdError {
  const what = {
    absent: "was started, and does not answer",
    other: "is not what is in its place",
    busy: "does not answer",
  }[found];
  return new SandboxdError("TOOLBOX_UNAVAILABLE", `the toolbox of sandbox "${id}" ${what}`, {
    hint: "a program in the sandbox stopped it or took its place, or the sandbox is out of memory or CPU; restart the sandbox",
    metadata: { sandbox_id: id },
  });
}

/** The engine speaks of a container; who asked knows a sandbox. */
function saidOf(id: string, error: unknown): unknown {
  if (!(error instanceof SandboxdError) || error.reason === "ENGINE_UNAVAILABLE") return error;
  return new SandboxdError(error.reason, `sandbox "${id}": ${error.message}`, error.details);
}
