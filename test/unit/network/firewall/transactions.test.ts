import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { createLearned } from "../../../../src/network/firewall/learned.ts";
import type { Nft } from "../../../../src/network/firewall/nft.ts";
import { createTransactions } from "../../../../src/network/firewall/transactions.ts";
import { ProgramError } from "../../../../src/network/program.ts";
import { createLog } from "../../../../src/observe/log.ts";
import { bridge, egressOf, sandbox } from "./policies.ts";

/** Transactions into a kernel that takes what `accepts` says, and keeps the scripts that came. */
function open(accepts: (script: string) => boolean = () => true) {
  const scripts: string[] = [];
  let gate = Promise.resolve();
  const nft: Nft = {
    async apply(script) {
      await gate;
      if (!accepts(script)) throw new ProgramError("nft", "Error: No such file or directory");
      scripts.push(script);
    },
    check: async () => {},
    listTable: async () => undefined,
    listSet: async () => undefined,
  };
  const transactions = createTransactions({
    ...{ table: "t", pools: ["10.77.0.0/16"], questionsPerSecond: 100, sniPort: 10_443, nft },
    learned: createLearned({ nowMs: () => 1_000 }),
    takeOver: async (state) => state,
    onChanged() {},
    monitor: () => undefined,
    log: createLog({ level: "fatal" }),
  });
  const hold = () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    return resolve;
  };
  return { transactions, scripts, hold };
}

const ids = ({ transactions }: ReturnType<typeof open>) => [...transactions.state().sandboxes.keys()].sort();

describe("changes of the firewall", () => {
  test("the first puts the tables there, later ones change them", async () => {
    const firewall = open();
    expect(firewall.transactions.isInstalled()).toBe(false);
    await firewall.transactions.change({ putBridges: [bridge], put: [sandbox("a", 2)] });
    await firewall.transactions.change({ put: [sandbox("b", 3)] });
    expect(firewall.scripts).toHaveLength(2);
    expect(firewall.scripts[0]).toContain("delete table inet t");
    expect(firewall.scripts[1]).not.toContain("table inet");
    expect(ids(firewall)).toEqual(["a", "b"]);
  });

  test("those of one moment are one transaction, and so are those that come while one is under way", async () => {
    const firewall = open();
    await firewall.transactions.change({ putBridges: [bridge] });
    const release = firewall.hold();
    const put = (id: string, last: number) => firewall.transactions.change({ put: [sandbox(id, last)] });
    const first = [put("a", 2), put("b", 3)];
    await turn();
    const second = [put("c", 4), put("d", 5), firewall.transactions.change({ remove: ["a"] })];
    release();
    await Promise.all([...first, ...second]);
    expect(firewall.scripts).toHaveLength(3);
    expect(ids(firewall)).toEqual(["b", "c", "d"]);
  });

  test("one that the kernel does not take is rejected, and leaves nothing behind", async () => {
    const firewall = open((script) => !script.includes("10.77.0.9 :"));
    await firewall.transactions.change({ putBridges: [bridge], put: [sandbox("a", 2)] });
    const refused = firewall.transactions.change({ put: [sandbox("z", 9)], remove: ["a"] });
    await expect(refused).rejects.toMatchObject({ reason: "NETWORK_UNAVAILABLE" });
    await expect(refused).rejects.toThrow(/No such file or directory/);
    expect(ids(firewall)).toEqual(["a"]);
    await firewall.transactions.change({ put: [sandbox("b", 3)] });
    expect(ids(firewall)).toEqual(["a", "b"]);
  });

  test("it does not take others of the same moment with it", async () => {
    const firewall = open((script) => !script.includes("10.77.0.9 :"));
    await firewall.transactions.change({ putBridges: [bridge] });
    const outcomes = await Promise.allSettled([
      firewall.transactions.change({ put: [sandbox("a", 2)] }),
      firewall.transactions.change({ put: [sandbox("z", 9)] }),
      firewall.transactions.change({ put: [{ ...sandbox("y", 8), address: "none" }] }),
      firewall.transactions.change({ put: [sandbox("b", 3)] }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
    expect(ids(firewall)).toEqual(["a", "b"]);
  });

  test("where the kernel has something else than it should, the tables are put there anew", async () => {
    let isGone = false;
    const firewall = open((script) => !isGone || script.includes("delete table"));
    await firewall.transactions.change({ putBridges: [bridge], put: [sandbox("a", 2)] });
    isGone = true;
    await firewall.transactions.change({ put: [sandbox("b", 3)] });
    expect(firewall.scripts[1]).toContain("delete table inet t");
    expect(firewall.scripts[1]).toContain("10.77.0.2 :");
    expect(firewall.scripts[1]).toContain("10.77.0.3 :");
  });

  test("addresses of names are learned for policies with names, and once for as long as they are valid", async () => {
    const firewall = open();
    const egress = egressOf({ scope: "LISTED", allowDomains: ["a.test"] });
    await firewall.transactions.change({
      putBridges: [bridge],
      put: [sandbox("a", 2, { egress }), sandbox("b", 3, { egress: egressOf() })],
    });
    const learn = (id: string, ttlMs: number) =>
      firewall.transactions.learn(id, [{ address: "93.184.216.34", ttlMs }]);
    await learn("a", 60_000);
    expect(firewall.scripts[1]).toMatch(
      /add element inet t learned \{\n\d+ \. 93\.184\.216\.34 timeout 60000ms\n\}/,
    );
    await learn("a", 30_000);
    await learn("b", 60_000);
    await learn("nobody", 60_000);
    expect(firewall.scripts).toHaveLength(2);
    await learn("a", 90_000);
    expect(firewall.scripts).toHaveLength(3);
  });

  test("a policy that takes the place of another has its addresses, as far as it allows their names", async () => {
    const firewall = open();
    const names = (...allowDomains: readonly string[]) =>
      firewall.transactions.change({
        putBridges: [bridge],
        put: [sandbox("a", 2, { egress: egressOf({ scope: "LISTED", allowDomains }) })],
      });
    await names("a.test", "b.test");
    await firewall.transactions.learn("a", [
      { address: "93.184.216.1", ttlMs: 60_000, name: "a.test" },
      { address: "93.184.216.2", ttlMs: 60_000, name: "b.test" },
      { address: "93.184.216.3", ttlMs: 60_000 },
    ]);
    const learned = (script = "") => [...new Set(script.match(/93\.184\.216\.\d/g))];
    await names("a.test", "b.test", "c.test");
    expect(learned(firewall.scripts.at(-1))).toEqual(["93.184.216.1", "93.184.216.2", "93.184.216.3"]);
    await names("b.test");
    expect(learned(firewall.scripts.at(-1))).toEqual(["93.184.216.2"]);
    await names("c.test");
    expect(learned(firewall.scripts.at(-1))).toEqual([]);
  });
});
