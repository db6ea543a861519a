// What the dev scheduler shows: a table that is drawn anew, one line per change, or one JSON object per change.

import { toJson } from "@bufbuild/protobuf";
import { EventSchema, EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { type Sandbox, SandboxState, TransitionReason } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { WorkspaceState } from "../../gen/sandboxd/v1/workspace_pb.ts";
import type { Change } from "./change.ts";
import type { Violation } from "./checker.ts";
import type { HostView } from "./host-view.ts";

/** One line for a person; undefined for changes that would only fill the screen. */
export function lineOf(change: Change): string | undefined {
  switch (change.kind) {
    case "listening":
      return `listening on ${change.url}`;
    case "connected":
      return printable(`${change.hostId} connected: ${change.sessionId}, epoch ${change.epoch}`);
    case "disconnected":
      return printable(`${change.hostId} disconnected: ${change.reason}`);
    case "snapshot":
      return printable(`${change.hostId} snapshot of ${change.sandboxes} sandboxes at #${change.sequence}`);
    case "event":
      return printable(`${change.hostId} #${change.event.sequence} ${eventWords(change)}`);
    case "gap":
      return printable(`${change.hostId} LOST events #${change.first} to #${change.last} to its retention`);
    case "violation":
      return violationLine(change.violation);
    case "host":
    case "heartbeat":
    case "stats":
      return undefined;
  }
}

/** The same for a program: a JSON object without line breaks. */
export function jsonOf(change: Change): string {
  if (change.kind === "event") return JSON.stringify({ ...change, event: toJson(EventSchema, change.event) });
  return JSON.stringify(change);
}

export interface TableFacts {
  readonly url: string;
  readonly hosts: readonly HostView[];
  readonly violations: readonly Violation[];
  /** Same clock as HostView.heartbeatMs. */
  readonly nowMs: number;
  /** Lines and columns that there is room for. */
  readonly rows: number;
  readonly columns: number;
}

/** The whole screen, as lines that fit. */
export function tableOf({ url, hosts, violations, nowMs, rows, columns }: TableFacts): readonly string[] {
  const lines = [
    `sandboxd dev scheduler on ${url}: ${hosts.length} hosts, ${violations.length} violations of the contract`,
    ...violations.slice(-3).map(violationLine),
    "",
    row(["HOST", "STATE", "EVENTS", "ACKED", "BEHIND", "BEAT", "RUNNING", "DROPPED"], hostWidths),
    ...hosts.map((host) => hostRow(host, nowMs)),
    "",
    row(["SANDBOX", "HOST", "TENANT", "STATE", "REASON", "CPU", "MEMORY"], sandboxWidths),
    ...hosts.flatMap((host) => [...host.sandboxes.values()].map((sandbox) => sandboxRow(host, sandbox))),
  ];
  const shown =
    lines.length > rows ? [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} more`] : lines;
  return shown.map((line) => printable(line).slice(0, columns));
}

const hostWidths = [24, 13, 10, 10, 8, 8, 8, 8];
const sandboxWidths = [28, 16, 14, 10, 16, 8, 10];

function hostRow(host: HostView, nowMs: number): string {
  const beatMs = host.heartbeatMs === undefined ? undefined : nowMs - host.heartbeatMs;
  const running = [...host.sandboxes.values()].filter(({ status }) => status?.state === SandboxState.RUNNING);
  return row(
    [
      host.hostId,
      host.connected ? "connected" : host.goodbye === "" ? "gone" : "left",
      `#${host.receivedSequence}`,
      `#${host.acknowledgedSequence}`,
      String(Math.max(0, host.lastSequence - host.receivedSequence)),
      beatMs === undefined ? "-" : `${(beatMs / 1_000).toFixed(1)}s`,
      String(running.length),
      String(host.droppedStats),
    ],
    hostWidths,
  );
}

function sandboxRow(host: HostView, sandbox: Sandbox): string {
  const stats = host.stats?.sandboxes.find(({ sandboxId }) => sandboxId === sandbox.sandboxId);
  const reason = sandbox.status?.transition?.reason;
  return row(
    [
      sandbox.sandboxId,
      host.hostId,
      sandbox.tenant,
      SandboxState[sandbox.status?.state ?? 0] ?? "?",
      reason === undefined ? "" : (TransitionReason[reason] ?? String(reason)),
      stats === undefined ? "-" : `${stats.cpuUsageMillis}m`,
      stats === undefined ? "-" : `${(Number(stats.memoryWorkingSetBytes) / 2 ** 20).toFixed(0)}Mi`,
    ],
    sandboxWidths,
  );
}

function row(cells: readonly string[], widths: readonly number[]): string {
  return cells.map((cell, index) => cell.slice(0, widths[index]).padEnd(widths[index] ?? 0)).join(" ");
}

function eventWords({ event }: Extract<Change, { kind: "event" }>): string {
  const type = EventType[event.type] ?? String(event.type);
  if (event.workspace !== undefined) {
    const { workspaceId, status } = event.workspace;
    return `${type} ${workspaceId} of ${event.tenant}: ${WorkspaceState[status?.state ?? 0]} ${status?.message ?? ""}`;
  }
  if (event.sandboxId === "") return `${type} ${event.tenant}${event.condition?.message ?? ""}`;
  const transition = event.sandbox?.status?.transition;
  const words = `${type} ${event.sandboxId} of ${event.tenant}`;
  if (transition === undefined) return words;
  const [from, to] = [SandboxState[transition.from], SandboxState[transition.to]];
  return `${words}: ${from} → ${to} (${TransitionReason[transition.reason]}) ${transition.message}`;
}

function violationLine({ hostId, rule, message }: Violation): string {
  return printable(`VIOLATION of the contract by ${hostId}: ${rule}: ${message}`);
}

// Hosts choose what stands here, and a terminal obeys control characters.
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, "·");
}
