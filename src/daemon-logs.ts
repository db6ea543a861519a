// Builds what sends the output of sandboxes on, where a receiver is configured, and builds it anew when that changes.

import { isDeepStrictEqual } from "node:util";
import type { Config } from "./config/config.ts";
import type { Shipping, ShippingOptions } from "./daemon-shipping.ts";

export interface LogShipping {
  /** Sends to the receiver of this configuration from now on. What the one before did not take is read again. */
  configure(config: Config): Promise<void>;
  /** Why the receiver is not connected; `connected`, or `off` where none is configured. */
  state(): "off" | "connected" | { readonly problem: string };
  close(): Promise<void>;
}

export function createLogShipping(options: ShippingOptions): LogShipping {
  const { metrics, onRender } = options.registry;
  let forward: Config["logs"]["forward"] | undefined;
  let shipping: Shipping | undefined;
  let changing: Promise<void> = Promise.resolve();

  onRender(() => {
    metrics.logForwardBuffered.set({}, shipping?.bufferedBytes() ?? 0);
    metrics.logForwardConnected.set({}, shipping !== undefined && shipping.problem() === undefined ? 1 : 0);
  });

  async function started(wanted: Config["logs"]["forward"] | undefined): Promise<Shipping | undefined> {
    if (wanted?.address === undefined) return undefined;
    const { startShipping } = await import("./daemon-shipping.ts");
    return startShipping(wanted.address, wanted, options);
  }

  async function change(wanted: Config["logs"]["forward"] | undefined): Promise<void> {
    if (isDeepStrictEqual(wanted, forward)) return;
    forward = wanted;
    await shipping?.close();
    shipping = await started(wanted);
  }
  const next = (wanted: Config["logs"]["forward"] | undefined) => {
    changing = changing.then(() => change(wanted));
    return changing;
  };

  return {
    configure: ({ logs }) => next(logs.forward),
    state() {
      if (shipping === undefined) return "off";
      const problem = shipping.problem();
      return problem === undefined ? "connected" : { problem };
    },
    close: () => next(undefined),
  };
}
