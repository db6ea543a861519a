// Whether the kernel has what it should: rules as they were when they were put there, and in each set what belongs there.

import { elementId, elementsOf } from "./elements.ts";
import type { Listing } from "./listing.ts";
import { ruleCount } from "./ruleset.ts";
import type { State } from "./state.ts";
import { livingSets } from "./tables.ts";

const living = new Set<string>(livingSets.flatMap((name) => [`inet ${name}`, `bridge ${name}`]));

/** The first thing that is not as it should be; undefined if all is. `structure`: as it was right after the tables were put there. */
export function firstDifference(
  listing: Listing,
  state: State,
  pools: readonly string[],
  structure: string | undefined,
): string | undefined {
  if (listing.rules !== ruleCount) return `${listing.rules} rules in place of ${ruleCount}`;
  if (structure !== undefined && listing.structure !== structure) return "the rules are not the same";
  const wanted = Map.groupBy(elementsOf(state, pools), ({ set }) => set);
  for (const [set, elements] of listing.sets) {
    if (living.has(set)) continue;
    const ids = new Set((wanted.get(set) ?? []).map(elementId));
    const stranger = elements.find(({ id }) => !ids.has(id));
    if (stranger !== undefined) return `${stranger.id} in set ${set}`;
    if (elements.length < ids.size) return `${ids.size - elements.length} elements are missing in set ${set}`;
  }
  const absent = [...wanted.keys()].find((set) => !listing.sets.has(set));
  return absent === undefined ? undefined : `set ${absent} is missing`;
}
