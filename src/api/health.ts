// grpc.health.v1: whether the daemon and each of its services serve, asked for once or watched.
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Health } from "../../gen/grpc/health/v1/health_pb.ts";
import { HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { shortened } from "./error-encoding.ts";

/** Whether a service serves. */
type ServingStatus = "SERVING" | "NOT_SERVING";

/** The health of each service by its full name; "" is the daemon as a whole. */
export interface HealthRegistry {
  /** Sets a service's status; watchers are told if it is another. */
  set(service: string, status: ServingStatus): void;
  /** The status; undefined for a service that was never set. */
  get(service: string): ServingStatus | undefined;
  /** All that were set. */
  list(): ReadonlyMap<string, ServingStatus>;
  /** Calls back after each change of this service's status; the function returned ends that. */
  watch(service: string, changed: () => void): () => void;
}

/** Knows no service yet. */
export function createHealthRegistry(): HealthRegistry {
  const statuses = new Map<string, ServingStatus>();
  const watchers = new Map<string, Set<() => void>>();
  return {
    set(service, status) {
      if (statuses.get(service) !== status) {
        statuses.set(service, status);
        for (const changed of [...(watchers.get(service) ?? [])]) {
          changed();
        }
      }
    },
    get: (service) => statuses.get(service),
    list: () => new Map(statuses),
    watch(service, changed) {
      const set = watchers.get(service) ?? new Set();
      watchers.set(service, set.add(changed));
      return () => {
        set.delete(changed);
        if (set.size === 0 && watchers.get(service) === set) {
          watchers.delete(service);
        }
      };
    },
  };
}

const nameMaxLength = 128;

/** Answers from the registry. */
export function createHealthService(registry: HealthRegistry): Required<ServiceImpl<typeof Health>> {
  return {
    check({ service }) {
      const status = registry.get(service);
      if (status === undefined) {
        // The standard names the code, and its clients know no reasons of ours.
        throw new ConnectError(`no service "${shortened(service, nameMaxLength)}"`, Code.NotFound);
      }
      return { status: HealthCheckResponse_ServingStatus[status] };
    },
    list() {
      const statuses = [...registry.list()].map(
        ([service, status]) => [service, { status: HealthCheckResponse_ServingStatus[status] }] as const,
      );
      return { statuses: Object.fromEntries(statuses) };
    },
    async *watch({ service }, { signal }) {
      let wake = (): void => {};
      const unwatch = registry.watch(service, () => wake());
      const onAbort = (): void => wake();
      signal.addEventListener("abort", onAbort);
      try {
        let told: string | undefined;
        while (!signal.aborted) {
          const status = registry.get(service) ?? "SERVICE_UNKNOWN";
          if (status !== told) {
            told = status;
            yield { status: HealthCheckResponse_ServingStatus[status] };
            continue;
          }
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        unwatch();
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}
