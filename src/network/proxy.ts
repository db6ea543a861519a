// A proxy of the host's configuration, and what its sandboxes are told of it.

export interface EgressProxy {
  readonly name: string;
  /** Of IPv4. */
  readonly address: string;
  readonly port: number;
  /** Names, suffixes of names and blocks that programs are to reach without it. */
  readonly noProxy: readonly string[];
}

/** In capitals and not: programs differ in which of them they read. */
export function proxyEnvironment({ address, port, noProxy }: EgressProxy): Readonly<Record<string, string>> {
  const url = `http://${address}:${port}`;
  const except = ["localhost", "127.0.0.1", "::1", ...noProxy].join(",");
  return {
    HTTP_PROXY: url,
    HTTPS_PROXY: url,
    NO_PROXY: except,
    http_proxy: url,
    https_proxy: url,
    no_proxy: except,
  };
}
