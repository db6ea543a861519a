// sandboxctl stats: a table that is drawn anew every second, or once.

import { HostService } from "../../../../gen/sandboxd/v1/host_service_pb.ts";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type SandboxStats, SandboxStatsSchema } from "../../../../gen/sandboxd/v1/stats_pb.ts";
import type { Command, Context } from "../context.ts";
import { forEach } from "../each.ts";
import { isJson, jsonLine } from "../output.ts";
import { withReconnection } from "../reconnect.ts";
import { tableText } from "../table.ts";
import { bytesText, cpusText } from "../units.ts";

const titles = ["SANDBOX", "CPUS", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];

/** To the upper left, and from there on nothing. */
const clearScreen = "\u001b[H\u001b[J";

export const stats: Command = async (context, args) => {
  const asJson = isJson(args);
  const show = (rows: readonly SandboxStats[]) =>
    asJson
      ? context.print(rows.map((row) => jsonLine(SandboxStatsSchema, row)).join(""))
      : context.print(tableText(titles, rows.map(rowOf)));
  if (!args.flags.has("no-stream")) return await watch(context, args.words, asJson, show);
  if (args.words.length > 0) {
    const sandboxes = context.client(SandboxService);
    const { found, exitCode } = await forEach(context, args.words, (sandboxId) =>
      sandboxes.getSandboxStats({ sandboxId }),
    );
    show(found.map(({ stats: one }) => one).filter((one) => one !== undefined));
    return exitCode;
  }
  const watching = new AbortController();
  for await (const { update } of context
    .client(HostService)
    .watchHost({ statsPeriod: { seconds: 1n }, sandboxStats: true }, { signal: watching.signal })) {
    if (update.case !== "stats") continue;
    show(update.value.sandboxes);
    break;
  }
  watching.abort();
  return 0;
};

async function watch(
  context: Context,
  ids: readonly string[],
  asJson: boolean,
  show: (rows: readonly SandboxStats[]) => void,
): Promise<number> {
  const sandboxes = context.client(SandboxService);
  const { exitCode } = await forEach(context, ids, (sandboxId) => sandboxes.getSandbox({ sandboxId }));
  if (exitCode !== 0) return exitCode;
  const updates = withReconnection(context, () =>
    context.client(HostService).watchHost({ statsPeriod: { seconds: 1n }, sandboxStats: true }),
  );
  for await (const { update } of updates) {
    if (update.case !== "stats") continue;
    if (!asJson && process.stdout.isTTY) context.print(clearScreen);
    show(update.value.sandboxes.filter(({ sandboxId }) => ids.length === 0 || ids.includes(sandboxId)));
  }
  return 0;
}

function rowOf(stats: SandboxStats): readonly string[] {
  const { memoryUsageBytes, memoryLimitBytes, network } = stats;
  const share = memoryLimitBytes > 0n ? (100 * Number(memoryUsageBytes)) / Number(memoryLimitBytes) : 0;
  return [
    stats.sandboxId,
    cpusText(stats.cpuUsageMillis),
    `${bytesText(memoryUsageBytes)} / ${bytesText(memoryLimitBytes)}`,
    `${share.toFixed(1)}%`,
    network === undefined ? "-" : `${bytesText(network.receiveBytes)} / ${bytesText(network.transmitBytes)}`,
    `${bytesText(stats.blockReadBytes)} / ${bytesText(stats.blockWriteBytes)}`,
    `${stats.pids} / ${stats.pidsLimit}`,
  ];
}
