// sandboxctl events

import { type Event, EventSchema, EventType } from "../../../../gen/sandboxd/v1/event_pb.ts";
import { EventService } from "../../../../gen/sandboxd/v1/event_service_pb.ts";
import { HostConditionType } from "../../../../gen/sandboxd/v1/host_pb.ts";
import { type NetworkDenial, NetworkProtocol } from "../../../../gen/sandboxd/v1/network_pb.ts";
import { SandboxState, TransitionReason } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import { optionValue } from "../arguments.ts";
import type { Command, Context } from "../context.ts";
import { isJson, jsonLine, wordsOf } from "../output.ts";
import { withReconnection } from "../reconnect.ts";
import { printable } from "../text.ts";
import { parseCount, timeText } from "../units.ts";

const pageSize = 1_000;

export const events: Command = async (context, args) => {
  const asJson = isJson(args);
  const since = optionValue(args, "since");
  const filter = { tenant: optionValue(args, "tenant") ?? "", sandboxId: optionValue(args, "sandbox") ?? "" };
  const show = (event: Event) => context.print(asJson ? jsonLine(EventSchema, event) : `${lineOf(event)}\n`);
  const after = since === undefined ? undefined : BigInt(parseCount(since, "--since"));
  if (args.flags.has("no-follow")) await list(context, filter, after ?? 0n, show);
  else await watch(context, filter, after, show);
  return 0;
};

type Filter = { readonly tenant: string; readonly sandboxId: string };

/** Resolves to the number of the last event that there was. */
async function list(
  context: Context,
  filter: Filter,
  after: bigint,
  show: (event: Event) => void,
): Promise<bigint> {
  const service = context.client(EventService);
  // 0 means from the oldest retained, whichever that is
  for (let last = after; ; ) {
    const page = await service.listEvents({
      filter,
      ...(last === 0n ? {} : { afterSequence: last }),
      pageSize,
    });
    for (const event of page.events) show(event);
    if (!page.more) return page.lastSequence;
    last = page.lastSequence;
  }
}

async function watch(
  context: Context,
  filter: Filter,
  after: bigint | undefined,
  show: (event: Event) => void,
): Promise<void> {
  let last = after === 0n ? await list(context, filter, after, show) : after;
  const updates = withReconnection(context, () =>
    context
      .client(EventService)
      .watchEvents({ filter, ...(last === undefined ? {} : { afterSequence: last }) }),
  );
  for await (const { update } of updates) {
    if (update.case === "event") show(update.value);
    if (update.case !== undefined) last = update.value.sequence;
  }
}

function lineOf(event: Event): string {
  const { sequence, time, type, sandboxId, tenant } = event;
  const facts = [
    ...(sandboxId === "" ? [] : [`sandbox=${sandboxId}`]),
    ...(tenant === "" ? [] : [`tenant=${tenant}`]),
    ...detailsOf(event),
  ];
  const name = (EventType[type] ?? String(type)).toLowerCase();
  return printable(`${timeText(time)} ${sequence} ${name} ${facts.join(" ")}`.trimEnd());
}

function detailsOf(event: Event): readonly string[] {
  const { type, sandbox, condition, schedule, workspace, snapshot, networkDenials } = event;
  const transition = sandbox?.status?.transition;
  return [
    ...(type === EventType.SANDBOX_STATE_CHANGED && transition !== undefined
      ? [
          `state=${SandboxState[transition.to]}`,
          `reason=${TransitionReason[transition.reason]}`,
          ...(transition.message === "" ? [] : [JSON.stringify(transition.message)]),
        ]
      : []),
    ...(condition === undefined
      ? []
      : [`${wordsOf(HostConditionType[condition.type])}: ${condition.active ? condition.message : "over"}`]),
    ...(schedule === undefined
      ? []
      : [schedule.schedulable ? "schedulable" : `cordoned ${schedule.reason}`.trim()]),
    ...(workspace === undefined ? [] : [`workspace=${workspace.workspaceId}`]),
    ...(snapshot === undefined ? [] : [`snapshot=${snapshot.snapshotId}`]),
    ...networkDenials.map(denialText),
  ];
}

/** "policy: 192.0.2.1:22/tcp", "name: example.com (3 times)". */
function denialText({ reason, destination, protocol, count }: NetworkDenial): string {
  const suffix =
    protocol === NetworkProtocol.UNSPECIFIED ? "" : `/${NetworkProtocol[protocol].toLowerCase()}`;
  const times = count > 1n ? ` (${count} times)` : "";
  return `${reason}: ${destination}${suffix}${times}`;
}
