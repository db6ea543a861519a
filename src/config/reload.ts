// What a configuration that was read again changes: which keys, and which of them take effect without a restart.

import type { Config } from "./config.ts";
import type { Setting } from "./load.ts";

/** What new requests and networks are held against, who is asked for names, and where logs are sent to. All else is built into a part of the daemon when it starts. */
const liveKeys =
  /^(images\.allow$|defaults\.|limits\.|templates\.|tenants\.unknown$|tenants\.default\.|network\.(allow_private|resolvers)$|proxies\.|workspaces\.(default|max)_bytes$|logs\.forward\.)/;

export interface Change {
  readonly key: string;
  /** Both as TOML, secrets hidden; undefined is not set. */
  readonly before: string | undefined;
  readonly after: string | undefined;
  /** Whether it takes effect only when the daemon is started again. */
  readonly needsRestart: boolean;
}

/** Every key whose value differs. A secret that was exchanged for another shows as no change, but takes effect. */
export function changesBetween(before: readonly Setting[], after: readonly Setting[]): readonly Change[] {
  const old = new Map(before.map(({ key, literal }) => [key, literal]));
  const now = new Map(after.map(({ key, literal }) => [key, literal]));
  return [...new Set([...old.keys(), ...now.keys()])]
    .filter((key) => old.get(key) !== now.get(key))
    .map((key) => ({
      key,
      before: old.get(key),
      after: now.get(key),
      needsRestart: !liveKeys.test(key),
    }));
}

/** The running configuration with what takes effect at once from the one that was read. */
export function reloaded(running: Config, read: Config): Config {
  return {
    ...running,
    images: { ...running.images, allow: read.images.allow },
    defaults: read.defaults,
    limits: read.limits,
    templates: read.templates,
    network: {
      ...running.network,
      allowPrivate: read.network.allowPrivate,
      resolvers: read.network.resolvers,
    },
    proxies: read.proxies,
    tenants: { ...running.tenants, unknown: read.tenants.unknown, default: read.tenants.default },
    workspaces: {
      ...running.workspaces,
      defaultBytes: read.workspaces.defaultBytes,
      maxBytes: read.workspaces.maxBytes,
    },
    logs: read.logs,
  };
}
