// What must hold between the keys of mounts, and between them and the rest of a configuration.

import type { Violation } from "./check.ts";
import type { Config } from "./config.ts";
import { isWithin, overlap, targetProblem } from "./mount-path.ts";

/** Everything about mounts that does not hold. */
export function mountsHold(config: Config): readonly Violation[] {
  return [
    ...Object.entries(config.shared).flatMap(([name, { directory }]) => sharedHolds(name, directory, config)),
    ...Object.entries(config.volumes).flatMap(([name, volume]) => volumeHolds(`volumes.${name}`, volume)),
    ...Object.entries(config.templates).flatMap(([name, template]) => templateHolds(name, template, config)),
  ];
}

/** Who opens one of the sockets, or reads the state, is more than a sandbox: read-only does not change that. */
function sharedHolds(name: string, directory: string | undefined, config: Config): readonly Violation[] {
  const key = `shared.${name}.directory`;
  if (directory === undefined) return [missing(key)];
  const { listen, engine, state, metrics } = config;
  const sockets = [
    ["listen.socket", listen.socket],
    ["engine.socket", engine.socket],
    ...(metrics.address?.kind === "unix" ? ([["metrics.address", metrics.address.path]] as const) : []),
  ] as const;
  const holds = sockets.find(([, path]) => isWithin(plain(path), plain(directory)));
  if (holds !== undefined) {
    const [other, path] = holds;
    return [{ keys: [key, other], problem: `${directory} holds ${other}, ${path}`, hint: "share another" }];
  }
  if (!overlap(plain(directory), plain(state.directory))) return [];
  const problem = `${directory} is in, at or above state.directory, ${state.directory}`;
  return [{ keys: [key, "state.directory"], problem, hint: "share another" }];
}

/** /var/run is a link to /run on every current distribution. */
function plain(path: string): string {
  return path.replace(/\/+(\.\/+)*/g, "/").replace(/^\/var\/run(?=\/|$)/, "/run");
}

type Volume = Config["volumes"][string];

const keysOf = {
  tmpfs: { needs: ["size_bytes"], takes: ["size_bytes", "inodes"] },
  nfs: { needs: ["address", "export"], takes: ["address", "export", "options"] },
} as const;

function volumeHolds(at: string, volume: Volume): readonly Violation[] {
  const { driver, scope } = volume;
  if (driver === undefined) return [missing(`${at}.driver`)];
  const given = {
    size_bytes: volume.sizeBytes,
    inodes: volume.inodes,
    address: volume.address,
    export: volume.export,
    options: volume.options,
  };
  const names = Object.keys(given) as (keyof typeof given)[];
  const { needs, takes }: { needs: readonly string[]; takes: readonly string[] } = keysOf[driver];
  const absent = needs.filter((name) => given[name as keyof typeof given] === undefined);
  const foreign = names.filter((name) => given[name] !== undefined && !takes.includes(name));
  return [
    ...absent.map((name) => missing(`${at}.${name}`, `a volume of driver ${driver} needs it`)),
    ...foreign.map((name) => ({
      keys: [`${at}.${name}`] as const,
      problem: `is no key of a volume of driver ${driver}`,
    })),
    ...(driver === "tmpfs" && volume.readOnly
      ? [{ keys: [`${at}.read_only`] as const, problem: "leaves a volume in memory empty for ever" }]
      : []),
    ...(volume.export === undefined ? [] : exportHolds(at, volume.export, scope)),
    ...optionsHold(`${at}.options`, volume.options ?? []),
  ];
}

function exportHolds(at: string, path: string, scope: Volume["scope"]): readonly Violation[] {
  const isNamed = path.includes("{tenant}");
  const keys = [`${at}.export`, `${at}.scope`] as const;
  if (scope === "tenant" && !isNamed) {
    const hint = 'put {tenant} into it, or let all tenants share it with scope = "host"';
    return [{ keys, problem: `${path} is the same for every tenant, but scope is tenant`, hint }];
  }
  return scope === "host" && isNamed
    ? [{ keys, problem: `${path} is another for each tenant, but scope is host` }]
    : [];
}

function optionsHold(key: string, options: readonly string[]): readonly Violation[] {
  const words = options.map((option) => option.replace(/=.*/, "").replace("soft", "hard"));
  const twice = options.find((_, index) => words.indexOf(words[index] ?? "") !== index);
  return twice === undefined ? [] : [{ keys: [key], problem: `${twice} says again what another says` }];
}

type Template = Config["templates"][string];

const mostOfAKind = 16;

/** Else every request of the template would be refused for what its caller did not say. */
function templateHolds(name: string, template: Template, config: Config): readonly Violation[] {
  const at = `templates.${name}`;
  const kinds = { tmpfs: template.tmpfs, shared: template.shared, volumes: template.volumes };
  const mounts = Object.entries(kinds).flatMap(([kind, table]) =>
    Object.entries(table).map(([own, { path }]) => ({
      key: `${at}.${kind}.${own}`,
      path: path ?? `/${own}`,
    })),
  );
  return [
    ...Object.entries(kinds).flatMap(([kind, table]) =>
      Object.keys(table).length > mostOfAKind
        ? [{ keys: [`${at}.${kind}`] as const, problem: `has more than ${mostOfAKind} entries` }]
        : [],
    ),
    ...mounts.flatMap(({ key, path }) => {
      const problem = targetProblem(path);
      return problem === undefined
        ? []
        : [{ keys: [`${key}.path`, key] as const, problem: `${path} ${problem}` }];
    }),
    ...mounts.flatMap((mount, index) => {
      const other = mounts.slice(0, index).find(({ path }) => overlap(path, mount.path));
      if (other === undefined) return [];
      const keys = [`${mount.key}.path`, mount.key, other.key] as const;
      return [{ keys, problem: `${mount.path} is at, above or below ${other.path} of ${other.key}` }];
    }),
    ...unknown(`${at}.shared`, template.shared, "shared", config.shared),
    ...unknown(`${at}.volumes`, template.volumes, "volumes", config.volumes),
    ...Object.entries(template.tmpfs).flatMap(([own, { sizeBytes, inodes }]) =>
      tmpfsHolds(`${at}.tmpfs.${own}`, { sizeBytes, inodes }, template, config),
    ),
  ];
}

function unknown(at: string, named: object, table: string, known: object): readonly Violation[] {
  return Object.keys(named)
    .filter((name) => !Object.hasOwn(known, name))
    .map((name) => ({
      keys: [`${at}.${name}`],
      problem: `there is no [${table}.${name}]`,
      hint: `there are: ${Object.keys(known).join(", ") || "none"}`,
    }));
}

function tmpfsHolds(
  at: string,
  { sizeBytes, inodes }: { readonly sizeBytes: number | undefined; readonly inodes: number | undefined },
  template: Template,
  { defaults, limits }: Config,
): readonly Violation[] {
  if (sizeBytes === undefined) return [missing(`${at}.size_bytes`, "", at)];
  const memoryBytes = template.resources.memoryBytes ?? defaults.memoryBytes;
  const above = (
    key: string,
    value: number | undefined,
    other: string,
    most: number,
  ): readonly Violation[] =>
    value === undefined || value <= most
      ? []
      : [
          {
            keys: [`${at}.${key}`, other],
            problem: `${at}.${key}, ${value}, is more than ${other}, ${most}`,
          },
        ];
  return [
    ...above("size_bytes", sizeBytes, "limits.max.tmpfs_bytes", limits.max.tmpfsBytes),
    ...above("size_bytes", sizeBytes, "the template's memory_bytes", memoryBytes),
    ...above("inodes", inodes, "limits.max.tmpfs_inodes", limits.max.tmpfsInodes),
  ];
}

function missing(key: string, hint = "", ...others: readonly string[]): Violation {
  return { keys: [key, ...others], problem: "is missing", ...(hint === "" ? {} : { hint }) };
}
