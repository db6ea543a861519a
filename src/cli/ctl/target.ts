// Where the daemon is, from the command line and the environment.

import { UsageError } from "./arguments.ts";

/** The environment's names. SANDBOXD_ is the prefix of the daemon's own configuration, so this is another. */
export const hostVariables = {
  host: "SANDBOXCTL_HOST",
  cert: "SANDBOXCTL_CERT",
  key: "SANDBOXCTL_KEY",
  ca: "SANDBOXCTL_CA",
} as const;

export const defaultHost = "unix:///run/sandboxd/sandboxd.sock";

/** How to reach a daemon. `name` is as it was given. */
export type Target =
  | { readonly kind: "unix"; readonly name: string; readonly path: string }
  | { readonly kind: "plain"; readonly name: string; readonly url: string }
  | {
      readonly kind: "tls";
      readonly name: string;
      readonly url: string;
      /** Files in PEM. */
      readonly cert: string;
      readonly key: string;
      /** Absent: the authorities that Node trusts. */
      readonly ca: string | undefined;
    };

export interface TargetOptions {
  readonly host?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly ca?: string | undefined;
}

/** An option wins over the environment; an empty variable is none. @throws UsageError */
export function parseTarget(
  options: TargetOptions,
  env: Readonly<Record<string, string | undefined>>,
): Target {
  const given = (name: keyof typeof hostVariables) =>
    options[name] ?? (env[hostVariables[name]] || undefined);
  const name = given("host") ?? defaultHost;
  if (name.startsWith("unix://")) {
    const path = name.slice("unix://".length);
    if (!path.startsWith("/"))
      throw new UsageError(`--host ${JSON.stringify(name)}: the path must be absolute, as ${defaultHost}`);
    return { kind: "unix", name, path };
  }
  const url = URL.canParse(name) ? new URL(name) : undefined;
  if (
    url === undefined ||
    !["http:", "https:"].includes(url.protocol) ||
    url.pathname !== "/" ||
    url.username !== ""
  )
    throw new UsageError(
      `--host ${JSON.stringify(name)}: expected unix:///PATH, https://HOST:PORT or http://127.0.0.1:PORT`,
    );
  if (url.protocol === "http:") {
    if (!["127.0.0.1", "[::1]", "localhost"].includes(url.hostname))
      throw new UsageError(`--host ${JSON.stringify(name)}: without TLS only this machine itself is called`);
    return { kind: "plain", name, url: url.origin };
  }
  const [cert, key] = [given("cert"), given("key")];
  if (cert === undefined || key === undefined)
    throw new UsageError(
      `--host ${JSON.stringify(name)}: a daemon on TCP wants a certificate: give --cert and --key`,
    );
  return { kind: "tls", name, url: url.origin, cert, key, ca: given("ca") };
}
