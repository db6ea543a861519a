import { expect, test } from "vitest";
import { createTerms, createUplinkSource, type UplinkSourceOptions } from "../../../src/api/uplink-source.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";

test("a snapshot tells a sandbox as its reader does, with what is seen of its network", () => {
  const store = temporaryStore();
  const repository = createRepository(store);
  const place = {
    ...{ network: "n", bridge: "sbx1", subnet: "10.0.0.0/28", gateway: "10.0.0.1" },
    ...{ address: "10.0.0.2", mac: "02:00:00:00:00:02" },
  };
  repository.insert(recordOf({ id: "connected", instance: "1", place }));
  repository.insert(recordOf({ id: "alone", instance: "2" }));
  const none = { policy: 3, host: 0, peer: 0, spoofed: 0, connections: 0, packets: 0, queries: 0 };
  const source = createUplinkSource({
    ...{ store, repository, terms: createTerms(store) },
    view: { clock: { nowMs: () => 0, wallMs: (ms: number) => ms } } as unknown as UplinkSourceOptions["view"],
    feed: { batch: () => [] } as unknown as UplinkSourceOptions["feed"],
    network: ({ place }) =>
      place && {
        effective: { mode: "INTERNAL", limits: {} },
        enforced: true,
        denials: { ...none, queriesRefused: 0, sni: 0 },
      },
  });
  const told = new Map([...source.snapshot().sandboxes].map((one) => [one.sandboxId, one.status?.network]));
  expect(told.get("connected")).toMatchObject({
    ...{ bridge: "sbx1", address: "10.0.0.2", gateway: "10.0.0.1", enforced: true },
    denials: { policy: 3n },
  });
  expect(told.has("alone") && told.get("alone")).toBeUndefined();
});
