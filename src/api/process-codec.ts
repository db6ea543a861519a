// Between the contract's messages of processes and the domain's values.

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type ProcessEventSchema,
  ProcessExitCause,
  type ProcessExitSchema,
  type ProcessSchema,
  ProcessState,
} from "../../gen/sandboxd/v1/process_pb.ts";
import {
  OutputMode,
  SignalScope,
  type StartProcessRequest,
} from "../../gen/sandboxd/v1/process_service_pb.ts";
import type { SignalScope as Scope } from "../process/keeper.ts";
import type { OtherProcess, ProcessExit, ProcessUsage, ProcessView } from "../process/record.ts";
import type { StartRequest } from "../process/request.ts";
import type { Told } from "../process/watcher.ts";
import { durationOf, millisecondsOf, timestampOf } from "./time-codec.ts";

type ProcessInit = MessageInitShape<typeof ProcessSchema>;
type ProcessEventInit = MessageInitShape<typeof ProcessEventSchema>;

export function startRequestOf(request: StartProcessRequest): StartRequest {
  const { terminal, timeout, killGrace, maxWait, keepalive } = request;
  return {
    sandboxId: request.sandboxId,
    processId: request.processId,
    command: request.command,
    env: request.env,
    workingDir: request.workingDir,
    hasInput: request.input,
    ...(terminal === undefined ? {} : { terminal: { rows: terminal.rows, columns: terminal.columns } }),
    ...(timeout === undefined ? {} : { timeoutMs: millisecondsOf(timeout) }),
    ...(killGrace === undefined ? {} : { killGraceMs: millisecondsOf(killGrace) }),
    killsOnDisconnect: request.killOnDisconnect,
    waits: request.outputMode === OutputMode.WAIT,
    ...(maxWait === undefined ? {} : { maxWaitMs: millisecondsOf(maxWait) }),
    retainedBytes: Number(request.retainedBytes),
    ...(keepalive === undefined ? {} : { keepaliveMs: millisecondsOf(keepalive) }),
  };
}

export function scopeOf(scope: SignalScope): Scope {
  switch (scope) {
    case SignalScope.PROCESS:
      return "PROCESS";
    case SignalScope.TREE:
      return "TREE";
    case SignalScope.GROUP:
    case SignalScope.UNSPECIFIED:
      return "GROUP";
  }
}

export function processOf(view: ProcessView): ProcessInit {
  const { record, usage } = view;
  return {
    processId: record.id,
    sandboxId: record.sandboxId,
    command: [...record.command],
    workingDir: record.workingDir,
    state: stateOf(view),
    pid: view.pid,
    startedAt: timestampOf(record.startedAtMs),
    ...(record.exit === undefined ? {} : { exit: exitOf(record.exit) }),
    ...(record.terminal === undefined ? {} : { terminal: record.terminal }),
    inputOpen: view.isInputOpen,
    inputOffset: BigInt(view.inputOffset),
    lastSequence: BigInt(view.lastSequence),
    firstRetainedSequence: BigInt(view.firstRetainedSequence),
    outputBytes: BigInt(view.outputBytes),
    droppedBytes: BigInt(view.droppedBytes),
    watchers: view.watchers,
    ...(usage === undefined ? {} : { usage: usageOf(usage) }),
  };
}

function stateOf({ record: { state } }: ProcessView): ProcessState {
  switch (state) {
    case "STARTING":
    case "RUNNING":
      return ProcessState.RUNNING;
    case "EXITED":
      return ProcessState.EXITED;
    case "LOST":
      return ProcessState.LOST;
  }
}

export function otherProcessOf(sandboxId: string, process: OtherProcess): ProcessInit {
  return {
    sandboxId,
    command: [...process.command],
    state: ProcessState.RUNNING,
    pid: process.pid,
    startedAt: timestampOf(process.startedAtMs),
    usage: usageOf(process.usage),
  };
}

const usageOf = ({ parentPid, cpuMs, residentBytes }: ProcessUsage) => ({
  parentPid,
  cpu: durationOf(cpuMs),
  residentBytes: BigInt(residentBytes),
});

function exitOf(exit: ProcessExit): MessageInitShape<typeof ProcessExitSchema> {
  return {
    exitCode: exit.exitCode,
    signal: exit.signal,
    oomKilled: exit.oomKilled,
    cause: ProcessExitCause[exit.cause],
    duration: durationOf(exit.durationUs / 1_000),
    cpuUser: durationOf(exit.userUs / 1_000),
    cpuSystem: durationOf(exit.systemUs / 1_000),
    maxResidentBytes: BigInt(exit.maxResidentBytes),
    exitedAt: timestampOf(exit.exitedAtMs),
  };
}

export function processEventOf(told: Told): ProcessEventInit {
  return { sequence: BigInt(told.sequence), event: whatOf(told) };
}

function whatOf(told: Told): NonNullable<ProcessEventInit["event"]> {
  switch (told.kind) {
    case "started":
      return { case: "started", value: { process: processOf(told.process) } };
    case "output":
      return { case: told.stream, value: told.data as Uint8Array<ArrayBuffer> };
    case "keepalive":
      return { case: "keepalive", value: {} };
    case "gap":
      return {
        case: "gap",
        value: { droppedBytes: BigInt(told.droppedBytes), nextSequence: BigInt(told.nextSequence) },
      };
    case "exited":
      return { case: "exited", value: { exit: exitOf(told.exit) } };
  }
}
