// What holds while the tables are gone: the kernel's routing drops whatever comes from a pool without the mark that the tables give. So
// a firewall that somebody emptied leaves sandboxes without a way out, and without one to the host.
//
// For each block of a pool three rules stand before the one that delivers to the host itself, which is otherwise the first:
//
//   0: from BLOCK iif lo lookup local      the host's own packets have no mark
//   0: from BLOCK iif lo lookup main
//   0: from BLOCK fwmark 0/0x1000 blackhole
//   0: from all lookup local
//
// The kernel asks its routing before it answers for the gateway's hardware address too, so that packets of ARP need the mark as well.
// So does it, where rp_filter is set, whether an answer comes by the way that the sandbox's packets take: with src_valid_mark it takes
// the mark of the answer for that, and without it no answer would come.
// The last one is moved behind them by adding a second, removing the first, and the other way round: at no time is there none.

import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../../errors.ts";
import { cidrText } from "../addresses.ts";
import type { Run } from "../program.ts";
import { cidrsOf, difference, hasAddress, setOf } from "../ranges.ts";
import { routedBlocks } from "../routes.ts";

/**
 * Packets that the tables let through have it. One bit that neither Docker, Kubernetes, CNI plugins, Calico, Weave nor Tailscale uses
 * (https://github.com/fwmark/registry), and that is not in the marks of wg-quick and of Docker's overlay networks.
 */
export const fenceMark = 0x1000;

export interface Fence {
  /** Puts in place what is missing. Resolves to whether something was. Rejects with what `ip` says. */
  ensure(): Promise<boolean>;
}

/** One rule of `ip -json rule list`. */
export interface RoutingRule {
  readonly priority?: number;
  readonly src?: string;
  readonly srclen?: number;
  readonly iif?: string;
  readonly fwmark?: string;
  readonly fwmask?: string;
  readonly table?: string;
  readonly action?: string;
  readonly protocol?: string;
}

/** `tee` and not a write of our own: the namespace may be another. */
const validationFile = "/proc/sys/net/ipv4/conf/all/src_valid_mark";

/** A rule of the kernel that another daemon or an earlier life is about to remove has so long. */
const patienceMs = 1_000;

export function createFence({ pools, run }: { readonly pools: readonly string[]; readonly run: Run }): Fence {
  const list = async () =>
    JSON.parse(await run(["ip", "-4", "-json", "rule", "list"])) as readonly RoutingRule[];

  const steps = async () =>
    fenceSteps(await list(), fencedBlocks(pools, await run(["cat", "/proc/net/route"])), pools);

  async function mendValidation(): Promise<boolean> {
    if ((await run(["cat", validationFile])).trim() === "1") return false;
    await run(["tee", validationFile], "1\n");
    return true;
  }

  async function mend(): Promise<boolean> {
    const isMended = await mendValidation();
    if ((await steps()).length === 0) return isMended;
    if ((await list()).some(isSpare)) await sleep(patienceMs);
    for (const step of await steps()) await run(["ip", "-4", "rule", ...step.split(" ")]);
    return true;
  }

  return {
    async ensure() {
      try {
        return await mend();
      } catch {
        // another daemon does the same at the same time: the second look is what counts
        await sleep(patienceMs);
        const isMended = await mend();
        const [missing] = await steps();
        if (missing !== undefined) throw new Error(`ip rule ${missing}: it did not stay`);
        return isMended;
      }
    },
  };
}

/** The pools without what this machine routes elsewhere, by its own table of routes: other networks are not to suffer. */
export function fencedBlocks(pools: readonly string[], routes: string): readonly string[] {
  const foreign = setOf(routedBlocks("sbx", routes).map(cidrText));
  return cidrsOf(difference(setOf(pools), foreign));
}

/** What `ip rule` has to do, in this order; nothing if all is as it should be. Rules of ours for other blocks of the pools go. */
export function fenceSteps(
  rules: readonly RoutingRule[],
  blocks: readonly string[],
  pools: readonly string[],
): readonly string[] {
  const steps: string[] = [];
  const first = rules.filter(({ priority }) => priority === 0);
  const within = setOf(pools);
  const ours = first.filter(
    ({ protocol, src = "" }) => protocol === String(ourProtocol) && hasAddress(within, src),
  );
  const kept = blocks.filter((block) => {
    const places = wantedRules(block).map((wanted) => ours.findIndex((rule) => textOf(rule) === wanted));
    return places.every((place, index) => place >= 0 && place > (places[index - 1] ?? -1));
  });
  // those of a block are there in order or not at all
  const staying = kept.flatMap(wantedRules);
  const gone = ours.map(textOf).filter((text) => !staying.includes(text));
  const come = blocks.filter((block) => !kept.includes(block)).flatMap(wantedRules);
  steps.push(...gone.map((text) => `del pref 0 ${text} protocol ${ourProtocol}`));
  steps.push(...come.map((text) => `add pref 0 ${text} protocol ${ourProtocol}`));

  const local = first.findIndex(isLocal);
  const isBehind = come.length === 0 && local > first.findLastIndex((rule) => ours.includes(rule));
  const hasSpare = rules.some(isSpare);
  if (!isBehind) {
    if (!hasSpare) steps.push(`add pref ${sparePriority} from all lookup local protocol kernel`);
    if (local >= 0) steps.push("del pref 0 from all lookup local");
    steps.push("add pref 0 from all lookup local protocol kernel");
  }
  if (!isBehind || hasSpare) steps.push(`del pref ${sparePriority} from all lookup local`);
  return steps;
}

/** Tells whoever lists the rules that they are no distribution's: 0x73, "s". */
const ourProtocol = 115;
const sparePriority = 1;

const wantedRules = (pool: string): readonly string[] => [
  `from ${pool} iif lo lookup local`,
  `from ${pool} iif lo lookup main`,
  `from ${pool} fwmark 0/0x${fenceMark.toString(16)} blackhole`,
];

/** It has no condition, whichever there are. */
const isLocal = (rule: RoutingRule) =>
  textOf(rule) === "from all lookup local" &&
  Object.keys(rule).every((key) => ["priority", "src", "table", "protocol"].includes(key));
const isSpare = (rule: RoutingRule) => rule.priority === sparePriority && isLocal(rule);

function textOf({ src = "all", srclen, iif, fwmark, fwmask, table, action }: RoutingRule): string {
  return [
    `from ${src}${src === "all" ? "" : `/${srclen ?? 32}`}`,
    ...(iif === undefined ? [] : [`iif ${iif}`]),
    ...(fwmask === undefined ? [] : [`fwmark ${Number(fwmark)}/${fwmask}`]),
    action ?? `lookup ${table}`,
  ].join(" ");
}

/** Why it cannot be had, for people. */
export function fenceProblem(error: unknown): string {
  return `sandboxes would not be held back while the firewall is being reloaded, since no routing rules can be set: ${messageOf(error)} (install iproute2)`;
}
