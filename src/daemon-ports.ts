// Builds the ways to ports of sandboxes: connections through their toolboxes, and the preview for browsers.

import { readFile } from "node:fs/promises";
import { transferred } from "./api/collection-pace.ts";
import type { Config } from "./config/config.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import { createForwarders } from "./ports/forwarder.ts";
import { createPorts, type Ports } from "./ports/ports.ts";
import { createPreview, type Preview } from "./preview/preview.ts";
import { createTokens } from "./preview/token.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Tenants } from "./tenant/tenants.ts";
import type { PortLink } from "./toolbox/connection.ts";

export interface PortPartsOptions {
  readonly config: Config;
  /** The host's secret. */
  readonly key: Buffer;
  readonly link: PortLink;
  readonly repository: Pick<Repository, "get">;
  /** Whose policies say which ports callers may reach. */
  readonly tenants: Pick<Tenants, "policyOf" | "subscribe">;
  readonly attach: (id: string) => () => void;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface PortParts {
  readonly ports: Ports;
  readonly grantPreview: Preview["grant"];
  /** Has the preview listen, if it is to. */
  listen(): Promise<void>;
  /** Reads its certificate anew; connections that the default policy does not allow any more break off. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

export function createPortParts(options: PortPartsOptions): PortParts {
  const { config, key, link, repository, tenants, attach } = options;
  const log = options.log.child("preview");
  const { address, domain, tls } = config.preview;
  const ports = createPorts({
    forwarders: createForwarders({ link }),
    repository,
    allowedPorts: (tenant) => tenants.policyOf(tenant).network.forwardPorts,
    onTransfer: transferred,
  });
  const unsubscribe = tenants.subscribe(ports.review);
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
    async reload() {
      ports.review();
      await preview.reload();
    },
    async close() {
      unsubscribe();
      await preview.close();
      ports.close();
    },
  };
}
