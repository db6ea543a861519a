// sandboxctl host, and host check, cordon, uncordon, drain.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  CheckVerdict,
  DrainPolicy,
  type Host,
  HostCheckSchema,
  HostConditionType,
} from "../../../../gen/sandboxd/v1/host_pb.ts";
import { GetHostResponseSchema, HostService } from "../../../../gen/sandboxd/v1/host_service_pb.ts";
import type { ResourceAmounts } from "../../../../gen/sandboxd/v1/resources_pb.ts";
import type { HostStats } from "../../../../gen/sandboxd/v1/stats_pb.ts";
import { WorkspaceBackend } from "../../../../gen/sandboxd/v1/workspace_pb.ts";
import { type Arguments, optionValue, UsageError } from "../arguments.ts";
import type { Command, Context } from "../context.ts";
import { isJson, jsonLine, wordsOf } from "../output.ts";
import { factsText, tableText } from "../table.ts";
import { printable } from "../text.ts";
import { bytesText, cpusText, parseDurationMs } from "../units.ts";

export const host: Command = async (context, args) => {
  const [task] = args.words;
  switch (task) {
    case undefined:
      return await summary(context, args);
    case "check":
      return await check(context, args);
    case "cordon":
    case "uncordon":
      await context
        .client(HostService)
        .setSchedulable({ schedulable: task === "uncordon", reason: optionValue(args, "reason") ?? "" });
      context.print(`${task}ed\n`);
      return 0;
    case "drain":
      return await drain(context, args);
    default:
      throw new UsageError(`host ${JSON.stringify(task)}: expected check, cordon, uncordon or drain`);
  }
};

async function summary(context: Context, args: Arguments): Promise<number> {
  const asJson = isJson(args);
  const answer = await context.client(HostService).getHost({});
  if (asJson) context.print(jsonLine(GetHostResponseSchema, answer));
  else if (answer.host !== undefined) context.print(factsText(factsOf(answer.host, answer.stats)));
  return 0;
}

function factsOf(found: Host, stats: HostStats | undefined): readonly (readonly [string, string])[] {
  const { engine, machine, schedule, workspaces } = found;
  const active = found.conditions.filter((condition) => condition.active);
  return [
    ["Host", found.hostId],
    ["Daemon", found.daemonVersion],
    [
      "Engine",
      engine === undefined
        ? "never reached"
        : `${engine.version}, API ${engine.apiVersion}, ${engine.storageDriver}, cgroup v${engine.cgroupVersion} (${engine.cgroupDriver})`,
    ],
    ...(machine === undefined
      ? []
      : ([["Machine", `${machine.operatingSystem}, Linux ${machine.kernel}, ${machine.cpuModel}`]] as const)),
    ["Accepting", acceptance(found)],
    ...(schedule?.drain === undefined
      ? []
      : ([["Drain", `${schedule.drain.remaining} sandboxes remain`]] as const)),
    ["Capacity", amountsText(found.capacity)],
    ["Allocatable", amountsText(found.allocatable)],
    ["Allocated", amountsText(found.allocated)],
    ["Limits", amountsText(found.limits)],
    ...(workspaces === undefined
      ? []
      : ([
          [
            "Workspaces",
            `${workspaces.workspaces} by ${wordsOf(WorkspaceBackend[workspaces.backend])}, ${bytesText(workspaces.promisedBytes)} of ${bytesText(workspaces.allocatableBytes)} promised`,
          ],
        ] as const)),
    ...(stats === undefined
      ? []
      : ([
          [
            "Load",
            `${cpusText(stats.cpuUsageMillis)} CPUs, ${stats.load1.toFixed(2)} ${stats.load5.toFixed(2)} ${stats.load15.toFixed(2)}, ${bytesText(stats.memoryAvailableBytes)} of ${bytesText(stats.memoryTotalBytes)} memory available`,
          ],
        ] as const)),
    ...active.map(
      ({ type, message, hint }) =>
        [
          "Condition",
          `${wordsOf(HostConditionType[type])}: ${message}${hint === "" ? "" : ` (${hint})`}`,
        ] as const,
    ),
  ];
}

function acceptance({ accepting, schedule }: Host): string {
  if (schedule !== undefined && !schedule.schedulable)
    return `no, cordoned${schedule.reason === "" ? "" : `: ${schedule.reason}`}`;
  return accepting ? "yes" : "no, see the conditions";
}

function amountsText(amounts: ResourceAmounts | undefined): string {
  if (amounts === undefined) return "unknown";
  const { cpuMillis, memoryBytes, pids, sandboxes } = amounts;
  return `${cpusText(cpuMillis)} CPUs, ${bytesText(memoryBytes)} memory, ${pids} pids, ${sandboxes} sandboxes`;
}

async function check(context: Context, args: Arguments): Promise<number> {
  const asJson = isJson(args);
  const { verdict, checks } = await context.client(HostService).checkHost({});
  if (asJson) for (const one of checks) context.print(jsonLine(HostCheckSchema, one));
  else
    context.print(
      tableText(
        ["CHECK", "VERDICT", "MESSAGE"],
        checks.map(({ name, verdict: one, message, hint }) => [
          name,
          wordsOf(CheckVerdict[one]),
          hint === "" ? message : `${message}; hint: ${hint}`,
        ]),
      ),
    );
  return verdict === CheckVerdict.FAILED ? 1 : 0;
}

async function drain(context: Context, args: Arguments): Promise<number> {
  const policyName = optionValue(args, "policy") ?? "stop";
  if (policyName !== "stop" && policyName !== "wait")
    throw new UsageError(`--policy ${JSON.stringify(policyName)}: expected stop or wait`);
  const deadline = optionValue(args, "deadline");
  const stream = context.client(HostService).drainHost({
    policy: policyName === "stop" ? DrainPolicy.STOP : DrainPolicy.WAIT,
    reason: optionValue(args, "reason") ?? "",
    ...(deadline === undefined ? {} : { deadline: durationFromMs(parseDurationMs(deadline, "--deadline")) }),
  });
  for await (const { remaining, sandboxIds, done } of stream)
    context.print(done ? "drained\n" : `${remaining} remain: ${printable(sandboxIds.join(" "))}\n`);
  return 0;
}
