// From the host to the contract's.

import { create } from "@bufbuild/protobuf";
import { HostConditionType, type Host as HostMessage, HostSchema } from "../../gen/sandboxd/v1/host_pb.ts";
import type { Host } from "../host/host.ts";
import type { Amounts } from "../sandbox/admission.ts";
import { version } from "../version.ts";
import { timestampOf } from "./sandbox-codec.ts";

export function hostOf(host: Host): HostMessage {
  const promised = host.promised();
  const engine = host.engine();
  const inventory = host.inventory();
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
    conditions: host.conditions().map((condition) => ({
      type: HostConditionType[condition.type],
      active: condition.active,
      message: condition.message,
      hint: condition.hint,
      time: timestampOf(condition.timeMs),
    })),
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
    accepting: host.accepting(),
  });
}

function amountsOf({ cpuMillis, memoryBytes, pids, sandboxes }: Amounts) {
  return {
    cpuMillis: BigInt(cpuMillis),
    memoryBytes: BigInt(memoryBytes),
    pids: BigInt(pids),
    sandboxes: BigInt(sandboxes),
  };
}
