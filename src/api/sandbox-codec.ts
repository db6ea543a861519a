// Between the contract's sandbox and the domain's: numbers for 64-bit integers, words for enums, milliseconds for times.

import { create } from "@bufbuild/protobuf";
import type { BlockIo, Resources as ResourcesMessage } from "../../gen/sandboxd/v1/resources_pb.ts";
import {
  ActorKind,
  type Sandbox,
  SandboxSchema,
  type SandboxSpec,
  SandboxState,
  TransitionReason,
} from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { SandboxFilter } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { Actor, ExitReport, Resources, SandboxRecord, State } from "../sandbox/record.ts";
import type { SpecRequest } from "../sandbox/spec.ts";
import { lifeOf, lifeRequestOf, lifeStatusOf } from "./life-codec.ts";
import { mountRequestOf, mountsOf } from "./mount-codec.ts";
import { type NetworkView, networkRequestOf, networkSpecOf, networkStatusOf } from "./network-codec.ts";
import { durationOf, millisecondsOf, timestampOf } from "./time-codec.ts";

/**
 * The contract's sandbox. Deadlines are told by the wall clock as it is set now; what is seen of its network only with a `view` of
 * that.
 */
export function sandboxOf(record: SandboxRecord, clock: Clock, view?: NetworkView): Sandbox {
  const { spec, transition, exit, place } = record;
  return create(SandboxSchema, {
    sandboxId: record.id,
    tenant: record.tenant,
    generation: BigInt(record.generation),
    createTime: timestampOf(record.createdAtMs),
    spec: {
      template: spec.template,
      image: spec.image,
      command: [...spec.command],
      args: [...spec.args],
      env: { ...spec.env },
      workingDir: spec.workingDir,
      labels: { ...spec.labels },
      resources: resourcesOf(spec.resources),
      stopGrace: durationOf(spec.stopGraceMs),
      ...lifeOf(spec),
      ...mountsOf(spec),
      ...networkSpecOf(spec),
    },
    status: {
      state: stateNumber(record.state),
      transition: {
        ...(transition.from === undefined ? {} : { from: stateNumber(transition.from) }),
        to: stateNumber(transition.to),
        reason: TransitionReason[transition.reason],
        message: transition.message,
        actor: actorOf(transition.actor),
        time: timestampOf(transition.timeMs),
      },
      ...(record.startedAtMs === undefined ? {} : { startTime: timestampOf(record.startedAtMs) }),
      ...(exit === undefined
        ? {}
        : {
            exit: {
              code: exit.code,
              signal: exit.signal,
              oomKilled: exit.oomKilled,
              oomKills: BigInt(exit.oomKills),
              finishTime: timestampOf(exit.finishedAtMs),
              ...(exit.report === undefined ? {} : reportOf(exit.report)),
            },
          }),
      containerId: record.containerId,
      imageId: record.imageId,
      uid: BigInt(record.uid),
      ...lifeStatusOf(record, clock),
      ...(place === undefined || view === undefined ? {} : { network: networkStatusOf(place, view) }),
    },
  });
}

function reportOf(report: ExitReport) {
  return {
    age: durationOf(report.ageMs),
    maxMemoryBytes: BigInt(report.maxMemoryBytes),
    memoryLimitHits: BigInt(report.memoryLimitHits),
    throttledShare: report.throttledShare,
    pidsRefused: BigInt(report.pidsRefused),
    logTail: [...report.logTail],
  };
}

export function actorOf({ kind, identity }: Actor) {
  return { kind: ActorKind[kind], identity };
}

function stateNumber(state: State): SandboxState {
  return SandboxState[state];
}

const ioNames = [
  "readBytesPerSecond",
  "writeBytesPerSecond",
  "readOperationsPerSecond",
  "writeOperationsPerSecond",
] as const satisfies readonly (keyof BlockIo)[];

const limitNames = [
  "cpuMillis",
  "cpuRequestMillis",
  "memoryBytes",
  "memoryRequestBytes",
  "pids",
  "openFiles",
  "tmpfsBytes",
  "tmpfsInodes",
  "shmBytes",
  "logBytes",
] as const satisfies readonly (keyof ResourcesMessage)[];

/** Those limits of a message that have a value. */
export function limitsOf(resources: Partial<Omit<Resources, "blockIo">>) {
  return Object.fromEntries(
    limitNames.flatMap((name) => {
      const value = resources[name];
      return value === undefined ? [] : [[name, BigInt(value)] as const];
    }),
  );
}

function resourcesOf(resources: Resources) {
  const io = ioNames.flatMap((name) => {
    const rate = resources.blockIo?.[name];
    return rate === undefined ? [] : [[name, BigInt(rate)] as const];
  });
  return { ...limitsOf(resources), ...(io.length === 0 ? {} : { blockIo: Object.fromEntries(io) }) };
}

/** The limits that a message sets. */
export function askedResources(message: ResourcesMessage | undefined): Partial<Resources> {
  if (message === undefined) return {};
  const limits = limitNames.flatMap((name) => {
    const value = message[name];
    return value === undefined ? [] : [[name, Number(value)] as const];
  });
  const io = ioNames.flatMap((name) => {
    const value = message.blockIo?.[name];
    return value === undefined ? [] : [[name, Number(value)] as const];
  });
  return Object.fromEntries<unknown>(
    io.length === 0 ? limits : [...limits, ["blockIo", Object.fromEntries(io)]],
  );
}

/** What a caller's spec asks for. */
export function specRequestOf(spec: SandboxSpec | undefined): SpecRequest {
  return {
    template: spec?.template ?? "",
    image: spec?.image ?? "",
    command: spec?.command ?? [],
    args: spec?.args ?? [],
    env: spec?.env ?? {},
    workingDir: spec?.workingDir ?? "",
    labels: spec?.labels ?? {},
    resources: askedResources(spec?.resources),
    ...(spec?.stopGrace === undefined ? {} : { stopGraceMs: millisecondsOf(spec.stopGrace) }),
    ...lifeRequestOf(spec),
    ...mountRequestOf(spec),
    ...networkRequestOf(spec),
  };
}

/** Whether a sandbox is one of those asked for. */
export function matcherOf(filter: SandboxFilter | undefined): (record: SandboxRecord) => boolean {
  const tenant = filter?.tenant ?? "";
  const labels = Object.entries(filter?.labels ?? {});
  const states = new Set(filter?.states ?? []);
  return (record) =>
    (tenant === "" || record.tenant === tenant) &&
    labels.every(([key, value]) => record.spec.labels[key] === value) &&
    (states.size === 0 || states.has(stateNumber(record.state)));
}
