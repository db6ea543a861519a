// Compares what the engine made with what the plan demands. The engine ignores keys that it doesn't know and fills
// others from the image and its own configuration, so nothing counts as set before it was seen.

import { isDeepStrictEqual } from "node:util";
import type { ContainerCreateOptions, ContainerInspectInfo, Ulimit } from "dockerode";
import type { ContainerPlan } from "./container-plan.ts";
import { containerCreateOptions } from "./host-config.ts";
import { expectedMounts, shownMounts } from "./mounts.ts";
import { networkDifferences } from "./network-verify.ts";
import { seccompProfile, seccompSha256 } from "./seccomp.ts";

/** One field that is not as demanded; both values as short JSON. */
export interface Mismatch {
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
}

type Fields = Readonly<Record<string, unknown>>;

/** Every field in which a created container differs from its plan; none means that it may be started. */
export function findMismatches(plan: ContainerPlan, inspected: ContainerInspectInfo): readonly Mismatch[] {
  const { name, Image, HostConfig, MacAddress, NetworkingConfig, ...config } = containerCreateOptions(plan);
  return [
    ...differing("Name", `/${name}`, inspected.Name),
    ...differing("Image", Image, inspected.Image),
    ...differing("Config.Image", Image, inspected.Config.Image),
    ...differing("Mounts", expectedMounts(plan), shownMounts(inspected.Mounts ?? [])),
    ...networkDifferences(plan.network, inspected).map((one) =>
      mismatch(one.field, one.expected, one.actual),
    ),
    ...(inspected.AppArmorProfile === "unconfined"
      ? [mismatch("AppArmorProfile", "not unconfined", inspected.AppArmorProfile)]
      : []),
    ...configMismatches(plan, config, inspected.Config),
    ...hostConfigMismatches({ ...HostConfig }, { ...inspected.HostConfig }),
  ];
}

/** Of the warnings with which the engine answered a create, those that say that a limit does not hold. */
export function limitWarnings(warnings: readonly string[] | null | undefined): readonly string[] {
  return (warnings ?? []).filter((text) => /discard|support|not mounted|ignor|swap|limit/i.test(text));
}

/** The image contributes variables and labels: ours must be there, and the image's must be harmless. */
function configMismatches(
  plan: ContainerPlan,
  {
    Env,
    Labels: _,
    ...expected
  }: Omit<ContainerCreateOptions, "name" | "Image" | "HostConfig" | "MacAddress" | "NetworkingConfig">,
  inspected: ContainerInspectInfo["Config"],
): readonly Mismatch[] {
  const actual: Fields = { ...inspected };
  return [
    ...Object.entries(expected).flatMap(([key, value]) => differing(`Config.${key}`, value, actual[key])),
    ...envMismatches(Env ?? [], inspected.Env ?? []),
    ...labelMismatches(plan, inspected.Labels ?? {}),
    ...volumeMismatches(plan, Object.keys(inspected.Volumes ?? {})),
  ];
}

function envMismatches(expected: readonly string[], actual: readonly string[]): readonly Mismatch[] {
  return expected.flatMap((entry) => {
    const name = entry.slice(0, entry.indexOf("=") + 1);
    const found = actual.filter((other) => other.startsWith(name));
    // values may be secrets, and a mismatch is logged
    return found.length === 1 && found[0] === entry
      ? []
      : [mismatch(`Config.Env.${name.slice(0, -1)}`, "as planned", `${found.length} other`)];
  });
}

function labelMismatches(plan: ContainerPlan, actual: Readonly<Record<string, string>>): readonly Mismatch[] {
  const claimed = Object.keys(actual).filter((key) => key.startsWith(plan.labelPrefix));
  return [...new Set([...Object.keys(plan.labels), ...claimed])].flatMap((key) =>
    differing(`Config.Labels.${key}`, plan.labels[key], actual[key]),
  );
}

function volumeMismatches(plan: ContainerPlan, declared: readonly string[]): readonly Mismatch[] {
  return declared
    .filter((path) => !plan.imageVolumes.includes(path))
    .map((path) => mismatch("Config.Volumes", "only the plan's image volumes", path));
}

// The engine's own configuration may add log options and ulimits of other names; ours must stand as they are.
const atLeastFields: Readonly<Record<string, (value: unknown) => unknown>> = {
  LogConfig: (value) => value,
  Ulimits: (value) => Object.fromEntries((value as readonly Ulimit[]).map((limit) => [limit.Name, limit])),
};

// Says how the client sees the container, nothing about the container: [0, 0] or the size of a terminal.
const irrelevantFields: ReadonlySet<string> = new Set(["ConsoleSize"]);

/** Fields asked for must be as asked; every other field, known to us or not, must be empty. */
function hostConfigMismatches(expected: Fields, actual: Fields): readonly Mismatch[] {
  const keys = new Set([...Object.keys(expected), ...Object.keys(actual)]);
  return [...keys]
    .filter((key) => !irrelevantFields.has(key))
    .flatMap((key) => {
      const field = `HostConfig.${key}`;
      const normal = atLeastFields[key];
      const [wanted, found] = [expected[key], actual[key]];
      if (normal === undefined || isEmpty(found)) return differing(field, wanted, found);
      return includes(normal(found), normal(wanted)) ? [] : [mismatch(field, wanted, found)];
    });
}

function differing(field: string, expected: unknown, actual: unknown): readonly Mismatch[] {
  if (isDeepStrictEqual(expected, actual)) return [];
  // a zero that was asked for is a value; one that wasn't says "not set"
  const same = typeof expected !== "number" && canonical(expected) === canonical(actual);
  return same ? [] : [mismatch(field, expected, actual)];
}

function mismatch(field: string, expected: unknown, actual: unknown): Mismatch {
  return { field, expected: short(expected), actual: short(actual) };
}

/** What the engine shows for "not set" has many forms; all mean the same. */
function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === false || value === 0) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

/** A text equal for values that mean the same: empties alike, keys and lists of words in order. */
function canonical(value: unknown): string {
  if (isEmpty(value)) return "unset";
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== "object" || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  });
}

function includes(actual: unknown, expected: unknown): boolean {
  if (typeof expected !== "object" || expected === null) return actual === expected;
  if (typeof actual !== "object" || actual === null) return false;
  return Object.entries(expected).every(([key, value]) => includes((actual as Fields)[key], value));
}

const longestShown = 400;

function short(value: unknown): string {
  const text = JSON.stringify(value) ?? "unset";
  const quoted = JSON.stringify(seccompProfile).slice(1, -1);
  const named = text.replaceAll(quoted, () => `sha256:${seccompSha256}`);
  return named.length <= longestShown ? named : `${named.slice(0, longestShown)}…`;
}
