// From the host to the contract's.

import { create } from "@bufbuild/protobuf";
import {
  CheckVerdict,
  DrainPolicy,
  HostConditionType,
  type Host as HostMessage,
  HostSchema,
} from "../../gen/sandboxd/v1/host_pb.ts";
import { WorkspaceBackend } from "../../gen/sandboxd/v1/workspace_pb.ts";
import type { Finding } from "../host/doctor/finding.ts";
import type { Host } from "../host/host.ts";
import type { Scheduling } from "../host/schedule.ts";
import type { Amounts } from "../sandbox/admission.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { ConditionFacts, Schedule } from "../sandbox/repository.ts";
import { version } from "../version.ts";
import type { BackendKind } from "../workspace/backend/backend.ts";
import { actorOf } from "./sandbox-codec.ts";
import { timestampOf } from "./time-codec.ts";

/** What a host is told from. */
export interface HostView {
  readonly host: Host;
  readonly scheduling: Scheduling;
  readonly clock: Clock;
  /** What it has for workspaces. */
  readonly workspaceCapacity: () => WorkspaceSpace | undefined;
}

export interface WorkspaceSpace {
  readonly backend: BackendKind;
  readonly capacityBytes: number;
  readonly allocatableBytes: number;
  readonly promisedBytes: number;
  readonly workspaces: number;
}

/** The contract's host. Deadlines are told by the wall clock as it is set now. */
export function hostOf({ host, scheduling, clock, workspaceCapacity }: HostView): HostMessage {
  const promised = host.promised();
  const engine = host.engine();
  const inventory = host.inventory();
  const schedule = scheduling.now();
  const space = workspaceCapacity();
  return create(HostSchema, {
    hostId: host.hostId,
    bootId: host.bootId,
    stateEpoch: host.epoch,
    daemonVersion: version,
    labels: { ...host.labels },
    capacity: amountsOf(host.capacity.capacity),
    allocatable: amountsOf(host.capacity.allocatable),
    allocated: amountsOf(promised.requests),
    limits: amountsOf(promised.limits),
    conditions: host.conditions().map(conditionOf),
    schedule: scheduleOf({ ...schedule, remaining: scheduling.remaining().length }, clock),
    ...(engine === undefined
      ? {}
      : {
          engine: {
            version: engine.version,
            apiVersion: engine.apiVersion,
            cgroupVersion: engine.cgroupVersion,
            cgroupDriver: engine.cgroupDriver,
            storageDriver: engine.storageDriver,
            runtimes: [...engine.runtimes],
          },
        }),
    ...(inventory === undefined
      ? {}
      : {
          machine: {
            operatingSystem: `${inventory.os.distribution} ${inventory.os.release}`,
            kernel: inventory.os.kernel,
            architecture: inventory.os.architecture,
            cpuModel: inventory.cpu.model,
            cpus: inventory.cpu.logical,
            memoryBytes: BigInt(inventory.memoryBytes),
          },
        }),
    accepting: host.accepting() && schedule.schedulable,
    ...(space === undefined ? {} : { workspaces: spaceOf(space) }),
  });
}

export function checkOf({ name, verdict, message, hint, advisories }: Finding) {
  return { name, verdict: CheckVerdict[verdict], message, hint, advisories: [...advisories] };
}

export function conditionOf({ type, active, message, hint, timeMs }: ConditionFacts) {
  return { type: HostConditionType[type], active, message, hint, time: timestampOf(timeMs) };
}

export function scheduleOf(
  { schedulable, reason, actor, timeMs, drain, remaining }: Schedule & { readonly remaining: number },
  clock: Clock,
) {
  return {
    schedulable,
    reason,
    ...(actor === undefined ? {} : { actor: actorOf(actor) }),
    ...(timeMs === undefined ? {} : { time: timestampOf(timeMs) }),
    ...(drain === undefined
      ? {}
      : {
          drain: {
            policy: DrainPolicy[drain.policy],
            deadline: timestampOf(clock.wallMs(drain.deadlineMs)),
            remaining,
          },
        }),
  };
}

function spaceOf({ backend, ...amounts }: WorkspaceSpace) {
  return {
    backend: WorkspaceBackend[backend],
    capacityBytes: BigInt(amounts.capacityBytes),
    allocatableBytes: BigInt(amounts.allocatableBytes),
    promisedBytes: BigInt(amounts.promisedBytes),
    workspaces: BigInt(amounts.workspaces),
  };
}

function amountsOf({ cpuMillis, memoryBytes, pids, sandboxes }: Amounts) {
  return {
    cpuMillis: BigInt(cpuMillis),
    memoryBytes: BigInt(memoryBytes),
    pids: BigInt(pids),
    sandboxes: BigInt(sandboxes),
  };
}
