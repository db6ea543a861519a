// The part of an effective spec that says what a sandbox sees besides its image: the request over its template, and the rules
// of where it may be seen.

import type { Config } from "../config/config.ts";
import { overlap, targetProblem } from "../config/mount-path.ts";
import type { FieldViolation } from "../errors.ts";
import type { Mounts, SharedMount, Spec, TmpfsMount, VolumeMount, WorkspaceUse } from "./record.ts";

/** What a request or a template says of it; absent means: what lies below. */
export interface MountRequest {
  readonly workspace?: WorkspaceUse;
  readonly tmpfs?: readonly (Omit<TmpfsMount, "inodes"> & { readonly inodes?: number })[];
  /** An empty path is the default, "/" and the name. */
  readonly shared?: readonly SharedMount[];
  readonly volumes?: readonly VolumeMount[];
  readonly rootBytes?: number;
}

/** What of a configuration mounts are held against. */
export type MountRules = Pick<Config, "shared" | "volumes" | "limits">;

/** Where a workspace is seen. */
export const workspacePath = "/workspace";

const defaultInodes = 16_384;

export function effectiveMounts(request: MountRequest, template: MountRequest, rules: MountRules): Mounts {
  const { workspace } = request;
  const rootBytes = request.rootBytes ?? template.rootBytes;
  const most = rules.limits.max.tmpfsInodes;
  const tmpfs = (request.tmpfs ?? template.tmpfs ?? []).map(({ path, sizeBytes, inodes }) => ({
    path,
    sizeBytes,
    inodes: inodes ?? Math.min(defaultInodes, most),
  }));
  const shared = (request.shared ?? template.shared ?? []).map(({ name, path }) => ({
    name,
    path: path || `/${name}`,
  }));
  const volumes = (request.volumes ?? template.volumes ?? []).map(({ name, path, readOnly }) => ({
    name,
    path: path || `/${name}`,
    readOnly: readOnly || (own(rules.volumes, name)?.readOnly ?? false),
  }));
  return {
    ...(workspace === undefined ? {} : { workspace }),
    ...(tmpfs.length === 0 ? {} : { tmpfs }),
    ...(shared.length === 0 ? {} : { shared }),
    ...(volumes.length === 0 ? {} : { volumes }),
    ...(rootBytes === undefined ? {} : { rootBytes }),
  };
}

/** A template's keys as a request would say them. */
export function mountsOfTemplate(template: Config["templates"][string]): MountRequest {
  const { tmpfs, shared, volumes, rootBytes } = template;
  const sized = Object.entries(tmpfs).map(([name, { path, sizeBytes = 0, inodes }]) => ({
    path: path ?? `/${name}`,
    sizeBytes,
    ...(inodes === undefined ? {} : { inodes }),
  }));
  return {
    ...(sized.length === 0 ? {} : { tmpfs: sized }),
    shared: Object.entries(shared).map(([name, { path = "" }]) => ({ name, path })),
    volumes: Object.entries(volumes).map(([name, { path = "", readOnly }]) => ({ name, path, readOnly })),
    ...(rootBytes === undefined ? {} : { rootBytes }),
  };
}

/** Of an effective spec. */
export function mountViolations(
  spec: Mounts & Pick<Spec, "resources">,
  rules: MountRules,
): readonly FieldViolation[] {
  const { workspace, tmpfs = [], shared = [], volumes = [], resources } = spec;
  const at = (kind: string, mounts: readonly { readonly path: string }[]) =>
    mounts.map(({ path }, index) => ({ field: `spec.${kind}[${index}].path`, path }));
  const targets = [
    ...(workspace === undefined ? [] : [{ field: "spec.workspace", path: workspacePath }]),
    ...at("tmpfs", tmpfs),
    ...at("shared", shared),
    ...at("volumes", volumes),
  ];
  return [
    ...targets.flatMap(({ field, path }, index) => {
      const problem = targetProblem(path);
      if (problem !== undefined) return [{ field, description: `"${path}" ${problem}` }];
      const other = targets.slice(0, index).find((one) => overlap(one.path, path));
      if (other === undefined) return [];
      return [{ field, description: `"${path}" is at, above or below ${other.field}, "${other.path}"` }];
    }),
    ...tmpfs.flatMap((mount, index) => tmpfsViolations(`spec.tmpfs[${index}]`, mount, resources, rules)),
    ...nameViolations("spec.shared", shared, "shares", rules.shared),
    ...nameViolations("spec.volumes", volumes, "declares", rules.volumes),
  ];
}

function tmpfsViolations(
  at: string,
  { sizeBytes, inodes }: TmpfsMount,
  { memoryBytes }: Spec["resources"],
  { limits: { max } }: MountRules,
): readonly FieldViolation[] {
  const above = (field: string, value: number, limit: string, most: number) =>
    value > most ? [{ field: `${at}.${field}`, description: `${value} is above ${limit}, ${most}` }] : [];
  return [
    ...above("size_bytes", sizeBytes, "memory_bytes", memoryBytes),
    ...above("size_bytes", sizeBytes, "this host's greatest tmpfs_bytes", max.tmpfsBytes),
    ...above("inodes", inodes, "this host's greatest tmpfs_inodes", max.tmpfsInodes),
  ];
}

function nameViolations(
  at: string,
  mounts: readonly { readonly name: string }[],
  verb: string,
  known: Readonly<Record<string, unknown>>,
): readonly FieldViolation[] {
  return mounts.flatMap(({ name }, index) => {
    const field = `${at}[${index}].name`;
    if (!Object.hasOwn(known, name)) {
      const names = Object.keys(known).join(", ") || "none";
      return [{ field, description: `this host ${verb} no "${name}"; it has: ${names}` }];
    }
    const isAgain = mounts.findIndex((one) => one.name === name) !== index;
    return isAgain ? [{ field, description: `"${name}" is named twice` }] : [];
  });
}

function own<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}
