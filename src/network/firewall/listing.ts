// The tables as `nft -j` lists them, in a form that can be compared with what was asked for.

import { signalChain } from "./tables.ts";

/** A set's element: its key in parts, with what else is known of it. */
export interface ListedElement {
  readonly parts: readonly string[];
  /** As `elementId` has it. */
  readonly id: string;
  readonly packets?: number;
  /** Until it goes by itself. Seconds. */
  readonly expires?: number;
}

export interface Listing {
  /** Chains, rules, and what kinds of sets there are: equal if nothing of it was changed. */
  readonly structure: string;
  /** How many rules there are, but for those of the chain that holds nothing. */
  readonly rules: number;
  /** By family and name: "inet sandboxes". */
  readonly sets: ReadonlyMap<string, readonly ListedElement[]>;
}

type Json = Readonly<Record<string, unknown>>;

/** Takes the output of one or more runs of `nft -j list`. @throws Error for what is no listing. */
export function readListing(outputs: readonly string[]): Listing {
  const structure: unknown[] = [];
  const sets = new Map<string, readonly ListedElement[]>();
  let rules = 0;
  for (const entry of outputs.flatMap(entriesOf)) {
    const [[kind, content] = ["", {}]] = Object.entries(entry) as [string, Json][];
    // handles are given anew, and what is in sets is compared on its own
    const { handle, elem, ...rest } = content;
    if (kind === "set" || kind === "map") {
      sets.set(`${rest["family"]} ${rest["name"]}`, arrayOf(elem).map(readElement));
    }
    if (rest["chain"] === signalChain) continue;
    if (kind === "rule") rules += 1;
    if (kind !== "metainfo") structure.push({ [kind]: rest });
  }
  return { structure: JSON.stringify(structure), rules, sets };
}

function entriesOf(output: string): readonly Json[] {
  const { nftables } = JSON.parse(output) as { readonly nftables?: readonly Json[] };
  if (!Array.isArray(nftables)) throw new Error("nft printed no listing");
  return nftables;
}

function readElement(json: unknown): ListedElement {
  if (Array.isArray(json)) {
    const [key, value] = json;
    const { parts, id } = readElement(key);
    return { parts, id: `${id} : ${String(value)}` };
  }
  const inner = isObject(json) ? json["elem"] : undefined;
  if (!isObject(inner)) {
    const parts = partsOf(json);
    return { parts, id: parts.join(" . ") };
  }
  const parts = partsOf(inner["val"]);
  const counter = inner["counter"];
  const { expires } = inner;
  return {
    parts,
    id: `${parts.join(" . ")}${boundOf(inner)}`,
    ...(isObject(counter) ? { packets: Number(counter["packets"]) } : {}),
    ...(typeof expires === "number" ? { expires } : {}),
  };
}

function partsOf(value: unknown): readonly string[] {
  if (!isObject(value)) return [String(value)];
  const { concat, prefix, range } = value;
  if (Array.isArray(concat)) return concat.flatMap(partsOf);
  if (isObject(prefix)) return [`${prefix["addr"]}/${prefix["len"]}`];
  if (Array.isArray(range)) return [range.join("-")];
  return [JSON.stringify(value)];
}

function boundOf({ limit, "ct count": count }: Json): string {
  if (isObject(limit)) {
    const over = limit["inv"] === true ? "over " : "";
    return ` limit rate ${over}${limit["rate"]}/${limit["per"]} burst ${limit["burst"]} packets`;
  }
  if (isObject(count)) return ` ct count ${count["inv"] === true ? "over " : ""}${count["val"]}`;
  return "";
}

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const arrayOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
