// Builds the ways to ports of sandboxes: connections through their toolboxes, and the preview for browsers.

import { readFile } from "node:fs/promises";
import { transferred } from "./api/collection-pace.ts";
import type { Config } from "./config/config.ts";
import type { PortRange } from "./network/policy.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import { createForwarders } from "./ports/forwarder.ts";
import { createPorts, type Ports } from "./ports/ports.ts";
import { createPreview, type Preview } from "./preview/preview.ts";
import { createTokens } from "./preview/token.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { PortLink } from "./toolbox/connection.ts";

export interface PortPartsOptions {
  readonly config: Config;
  /** The host's secret. */
  readonly key: Buffer;
  readonly link: PortLink;
  readonly repository: Pick<Repository, "get">;
  /** Those of a tenant that callers may reach. */
  readonly allowedPorts: (tenant: string) => readonly PortRange[];
  readonly attach: (id: string) => () => void;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface PortParts {
  readonly ports: Ports;
  readonly grantPreview: Preview["grant"];
  /** Has the preview listen, if it is to. */
  listen(): Promise<void>;
  /** Reads its certificate anew. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

export function createPortParts(options: PortPartsOptions): PortParts {
  const { config, key, link, repository, allowedPorts, attach } = options;
  const log = options.log.child("preview");
  const { address, domain, tls } = config.preview;
  const ports = createPorts({
    forwarders: createForwarders({ link }),
    ...{ repository, allowedPorts, onTransfer: transferred },
  });
  options.registry.onRender(() => options.registry.metrics.portConnections.set({}, ports.count()));
  const { certificate, key: keyFile } = tls;
  const preview = createPreview({
    ports,
    tokens: createTokens({ key, find: (id) => repository.get(id) }),
    domain,
    ...(certificate === undefined || keyFile === undefined
      ? {}
      : { tls: async () => ({ cert: await readFile(certificate), key: await readFile(keyFile) }) }),
    attach,
    log,
  });
  return {
    ports,
    grantPreview: preview.grant,
    async listen() {
      if (address?.kind !== "tcp") return;
      log.info({ address: await preview.listen(address) }, "listening");
    },
    reload: preview.reload,
    async close() {
      await preview.close();
      ports.close();
    },
  };
}
