import { Resolver as SystemResolver } from "node:dns/promises";
import { setTimeout as sleep } from "node:timers/promises";
import dnsPacket from "dns-packet";
import { afterEach, describe, expect, test } from "vitest";
import {
  type Asked,
  a,
  alias,
  gateway,
  type Inside,
  type InsideOptions,
  listed,
  type Outside,
  open,
  type Said,
  send,
  soa,
  startInside,
  startOutside,
} from "./fixture.ts";

const codes = { NOERROR: 0, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 };
const public1 = "8.8.8.8";
const public2 = "1.1.1.1";

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).toReversed()) await one.close();
});

async function outsideThat(
  say: (asked: Asked) => Said | undefined | Promise<Said | undefined>,
): Promise<Outside> {
  const outside = await startOutside(say);
  opened.push(outside);
  return outside;
}

async function insideWith(options: InsideOptions): Promise<Inside> {
  const inside = await startInside(options);
  opened.push(inside);
  return inside;
}

/** Two sandboxes: "any" at 127.0.0.2 may reach all that is public, "some" at 127.0.0.3 example.com and what is below it. */
const sandboxes = {
  "127.0.0.2": { sandboxId: "any", egress: open },
  "127.0.0.3": { sandboxId: "some", egress: listed("example.com", "*.example.com") },
  "127.0.0.4": { sandboxId: "none" },
};
const some = "127.0.0.3";
const none = "127.0.0.4";

const everywhere =
  (address = public1, ttl = 60) =>
  ({ name }: Asked): Said => ({ answers: [a(name, address, ttl)] });

describe("what is answered", () => {
  test("an allowed name, by UDP and by TCP", async () => {
    const outside = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    const byUdp = await ask({ name: "example.com" });
    expect(byUdp).toMatchObject({ code: codes.NOERROR, records: [`example.com A ${public1}`], ttls: [60] });
    const byTcp = await ask({ name: "example.org", transport: "tcp" });
    expect(byTcp).toMatchObject({ code: codes.NOERROR, records: [`example.org A ${public1}`] });
  });

  test("also to another implementation of clients", async () => {
    const outside = await outsideThat(({ name, type }) =>
      type === "MX"
        ? { answers: [{ type, name, ttl: 60, data: { preference: 10, exchange: "mail.example.com" } }] }
        : type === "TXT"
          ? { answers: [{ type, name, ttl: 60, data: ["v=spf1 ", "-all"] }] }
          : type === "SRV"
            ? { answers: [{ type, name, ttl: 60, data: { port: 5060, target: "sip.example.com" } }] }
            : { answers: [alias(name, "b.example.com"), a("b.example.com", public1)] },
    );
    const { port } = await insideWith({
      sandboxes: { [gateway]: { sandboxId: "any", egress: open } },
      outside: [outside],
    });
    const client = new SystemResolver({ timeout: 2_000, tries: 1 });
    client.setServers([`${gateway}:${port}`]);
    expect(await client.resolve4("a.example.com")).toEqual([public1]);
    await expect(client.resolve6("a.example.com")).rejects.toMatchObject({ code: "ENODATA" });
    expect(await client.resolveMx("example.com")).toMatchObject([
      { priority: 10, exchange: "mail.example.com" },
    ]);
    expect(await client.resolveTxt("example.com")).toEqual([["v=spf1 ", "-all"]]);
    expect(await client.resolveSrv("_sip._udp.example.com")).toMatchObject([
      { port: 5060, name: "sip.example.com" },
    ]);
  });

  test("the question comes back letter for letter, whatever its case", async () => {
    const outside = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    const { packet, code } = await ask({ name: "wWw.ExAmPlE.cOm", from: some });
    expect(code).toBe(codes.NOERROR);
    expect(packet.questions).toMatchObject([{ name: "wWw.ExAmPlE.cOm" }]);
    expect(outside.asked.map(({ name }) => name)).toEqual(["www.example.com"]);
  });

  test("what does not fit into a datagram is cut, and whole by TCP", async () => {
    const addresses = Array.from({ length: 60 }, (_, index) => `8.8.4.${index}`);
    const outside = await outsideThat(({ name }) => ({ answers: addresses.map((one) => a(name, one)) }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    const plain = await ask({ name: "example.com" });
    expect(plain.isTruncated).toBe(true);
    expect(plain.bytes).toBeLessThanOrEqual(512);
    expect(plain.records.length).toBeGreaterThan(10);
    const roomy = await ask({ name: "example.com", roomBytes: 4_096 });
    expect(roomy.bytes).toBeLessThanOrEqual(1_232);
    expect(roomy.records.length).toBeGreaterThan(plain.records.length);
    const byTcp = await ask({ name: "example.com", transport: "tcp" });
    expect(byTcp).toMatchObject({ isTruncated: false, records: { length: 60 } });
  });

  test("AAAA is empty and asked of nobody: there is no IPv6", async () => {
    const outside = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    expect(await ask({ name: "example.com", type: "AAAA" })).toMatchObject({
      code: codes.NOERROR,
      records: [],
    });
    expect(outside.asked).toEqual([]);
    expect((await ask({ name: "example.com", type: "A" })).records).toHaveLength(1);
  });

  test("what the zone says is not there", async () => {
    const outside = await outsideThat(({ name }) => ({
      code: codes.NXDOMAIN,
      authorities: [soa("com", 60, 60)],
      name,
    }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    const told = await ask({ name: "nothing.example.com" });
    expect(told).toMatchObject({ code: codes.NXDOMAIN, records: [] });
  });

  test("nothing of the client goes along: no client subnet, our own room for datagrams", async () => {
    const outside = await outsideThat(everywhere());
    const { port } = await insideWith({ sandboxes, outside: [outside] });
    const message = dnsPacket.encode({
      type: "query",
      id: 7,
      flags: dnsPacket.RECURSION_DESIRED | dnsPacket.CHECKING_DISABLED,
      questions: [{ name: "example.com", type: "A", class: "IN" }],
      additionals: [
        {
          ...{ type: "OPT", name: ".", udpPayloadSize: 4_096, extendedRcode: 0, ednsVersion: 0, flags: 0 },
          flag_do: false,
          options: [{ code: 8, ip: "1.2.3.0", family: 1, sourcePrefixLength: 24 }],
        },
      ],
    });
    await send(port, "127.0.0.2", message);
    expect(outside.asked[0]?.packet.additionals).toMatchObject([{ udpPayloadSize: 1_232, options: [] }]);
    expect(outside.asked[0]?.packet.flag_cd).toBe(false);
  });
});

describe("what is not answered", () => {
  test("a name that is not listed does not exist, is asked of nobody, and is told", async () => {
    const outside = await outsideThat(everywhere());
    const { ask, denied, resolver } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "evil.net", from: some })).code).toBe(codes.NXDOMAIN);
    expect(outside.asked).toEqual([]);
    expect(denied).toEqual([["some", "evil.net", "name"]]);
    expect((await ask({ name: "www.example.com", from: some })).code).toBe(codes.NOERROR);
    expect(resolver.counts().get("some")).toEqual({ queries: 1, refused: 1 });
  });

  test("nothing outside exists for one that reaches nothing", async () => {
    const outside = await outsideThat(everywhere());
    const { ask, denied } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "example.com", from: none })).code).toBe(codes.NXDOMAIN);
    expect(denied).toEqual([["none", "example.com", "name"]]);
    expect(outside.asked).toEqual([]);
  });

  test("names of peers, which the engine knows, are asked of nobody and not told as refused", async () => {
    const outside = await outsideThat(everywhere());
    const { ask, denied, resolver } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "web", from: some })).code).toBe(codes.NXDOMAIN);
    expect(denied).toEqual([]);
    expect(resolver.counts().get("some")).toEqual({ queries: 1, refused: 0 });
    expect(outside.asked).toEqual([]);
  });

  test("a stranger is refused", async () => {
    const outside = await outsideThat(everywhere());
    const { ask, resolver } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "example.com", from: "127.0.0.9" })).code).toBe(codes.REFUSED);
    expect((await ask({ name: "example.com" })).code).toBe(codes.NOERROR);
    expect([...resolver.counts().keys()]).toEqual(["any"]);
  });

  test("why is in the answer, for tools that show it", async () => {
    const { ask } = await insideWith({ sandboxes });
    const { packet } = await ask({ name: "evil.net", from: some, roomBytes: 1_232 });
    const [opt] = packet.additionals ?? [];
    const [told] = opt?.type === "OPT" ? opt.options : [];
    expect(told?.data?.subarray(0, 2)).toEqual(Buffer.from([0, 15]));
    expect(told?.data?.toString("utf8", 2)).toMatch("egress policy");
  });

  test("a policy that is widened is seen with the next question, one that is narrowed also while one is asked", async () => {
    const { promise: isAsked, resolve: told } = Promise.withResolvers<void>();
    const { promise: mayAnswer, resolve: answer } = Promise.withResolvers<void>();
    const outside = await outsideThat(async (asked) => {
      told();
      await mayAnswer;
      return everywhere()(asked);
    });
    let egress = listed("example.org");
    const { ask, learnt } = await insideWith({
      sandboxes,
      asker: () => ({ sandboxId: "one", egress }),
      outside: [outside],
      patienceMs: 2_000,
    });
    expect((await ask({ name: "example.com" })).code).toBe(codes.NXDOMAIN);
    egress = listed("example.com");
    const asking = ask({ name: "example.com" });
    await isAsked;
    egress = listed("example.org");
    answer();
    expect((await asking).code).toBe(codes.NXDOMAIN);
    expect(learnt).toEqual([]);
    egress = listed("example.com");
    expect((await ask({ name: "example.com" })).code).toBe(codes.NOERROR);
  });
});

describe("addresses that are not public", () => {
  const inside1 = [
    "10.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
  ];

  test.each(inside1)("make a name that has none but %s one that does not exist", async (address) => {
    const outside = await outsideThat(everywhere(address));
    const { ask, denied, learnt, resolver } = await insideWith({ sandboxes, outside: [outside] });
    for (const from of ["127.0.0.2", some]) {
      expect(await ask({ name: "example.com", from })).toMatchObject({ code: codes.NXDOMAIN, records: [] });
    }
    expect(denied).toEqual([
      ["any", "example.com", "rebinding"],
      ["some", "example.com", "rebinding"],
    ]);
    expect(learnt).toEqual([]);
    expect(resolver.counts().get("some")).toEqual({ queries: 0, refused: 1 });
  });

  test("are left out beside those that are", async () => {
    const outside = await outsideThat(({ name }) => ({ answers: [a(name, "10.0.0.1"), a(name, public1)] }));
    const { ask, denied, learnt } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "example.com", from: some })).records).toEqual([`example.com A ${public1}`]);
    expect(denied).toEqual([["some", "example.com", "rebinding"]]);
    expect(learnt.map(({ address }) => address)).toEqual([public1]);
  });

  test("are told where the policy names them, and learnt by nobody: they are allowed as they are", async () => {
    const outside = await outsideThat(everywhere("10.1.2.3"));
    const egress = { ...listed("example.com"), allowCidrs: ["10.1.0.0/16"] };
    const { ask, learnt } = await insideWith({
      sandboxes: { [some]: { sandboxId: "some", egress } },
      outside: [outside],
    });
    expect((await ask({ name: "example.com", from: some })).records).toEqual(["example.com A 10.1.2.3"]);
    expect(learnt).toEqual([]);
  });
});

describe("aliases", () => {
  test("are followed from the name that was asked, which alone must be allowed", async () => {
    const outside = await outsideThat(({ name }) => ({
      answers: [
        a("edge.cdn.net", public1, 30),
        alias("www.cdn.net", "edge.cdn.net", 20),
        alias(name, "www.cdn.net", 40),
      ],
    }));
    const { ask, learnt } = await insideWith({ sandboxes, outside: [outside] });
    const told = await ask({ name: "example.com", from: some });
    expect(told.records).toEqual([
      "example.com CNAME www.cdn.net",
      "www.cdn.net CNAME edge.cdn.net",
      `edge.cdn.net A ${public1}`,
    ]);
    expect(told.ttls).toEqual([20, 20, 20]);
    expect(learnt.map(({ address }) => address)).toEqual([public1]);
    expect((await ask({ name: "www.cdn.net", from: some })).code).toBe(codes.NXDOMAIN);
  });

  test("records that do not follow from it are left out", async () => {
    const outside = await outsideThat(({ name }) => ({
      answers: [a(name, public1), a("bank.com", public2), alias("x.com", "y.com")],
    }));
    const { ask, learnt } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "example.com", from: some })).records).toEqual([`example.com A ${public1}`]);
    expect(learnt.map(({ address }) => address)).toEqual([public1]);
    await ask({ name: "bank.com" });
    expect(outside.asked.map(({ name }) => name)).toEqual(["example.com", "bank.com"]);
  });

  test("that lead in a circle lead nowhere", async () => {
    const outside = await outsideThat(({ name }) => ({
      answers: [alias(name, "b.com"), alias("b.com", name)],
    }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    const told = await ask({ name: "example.com", transport: "tcp" });
    expect(told.code).toBe(codes.NOERROR);
    expect(told.records.every((record) => record.includes(" CNAME "))).toBe(true);
  });

  test("that end inside do so too", async () => {
    const outside = await outsideThat(({ name }) => ({
      answers: [alias(name, "b.com"), a("b.com", "10.0.0.1")],
    }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    expect(await ask({ name: "example.com" })).toMatchObject({ code: codes.NXDOMAIN, records: [] });
  });
});

describe("addresses of allowed names", () => {
  test("can be reached before the answer is there", async () => {
    const outside = await outsideThat(everywhere());
    const order: string[] = [];
    const { ask } = await insideWith({
      sandboxes,
      outside: [outside],
      learn: async () => {
        await sleep(50);
        order.push("learnt");
      },
    });
    await ask({ name: "example.com", from: some });
    order.push("answered");
    expect(order).toEqual(["learnt", "answered"]);
  });

  test("are not told where the firewall does not take them; and are once it does", async () => {
    const outside = await outsideThat(everywhere());
    let isBroken = true;
    const { ask } = await insideWith({
      sandboxes,
      outside: [outside],
      learn: async () => {
        if (isBroken) throw new Error("no");
      },
    });
    expect(await ask({ name: "example.com", from: some })).toMatchObject({
      code: codes.SERVFAIL,
      records: [],
    });
    isBroken = false;
    expect((await ask({ name: "example.com", from: some })).code).toBe(codes.NOERROR);
  });

  test("are learnt for each sandbox, also from memory, and for as long as the answer is valid and a while longer", async () => {
    const outside = await outsideThat(everywhere(public1, 100));
    const clock = { nowMs: 0 };
    const other = "127.0.0.5";
    const { ask, learnt } = await insideWith({
      sandboxes: { ...sandboxes, [other]: { sandboxId: "other", egress: listed("example.com") } },
      outside: [outside],
      clock,
    });
    await ask({ name: "example.com", from: some });
    clock.nowMs += 40_000;
    expect((await ask({ name: "example.com", from: other })).ttls).toEqual([60]);
    expect(learnt).toEqual([
      { sandboxId: "some", address: public1, ttlMs: 160_000, name: "example.com" },
      { sandboxId: "other", address: public1, ttlMs: 120_000, name: "example.com" },
    ]);
    expect(outside.asked).toHaveLength(1);
  });

  test("are not learnt with each answer from memory, but again by another name, and where the policy is another", async () => {
    const outside = await outsideThat(everywhere(public1, 100));
    const clock = { nowMs: 0 };
    const askers = { [some]: { sandboxId: "some", egress: listed("example.com", "example.org") } };
    const { ask, learnt } = await insideWith({ sandboxes: askers, outside: [outside], clock });
    await ask({ name: "example.com", from: some });
    clock.nowMs += 5_000;
    await ask({ name: "example.com", from: some });
    expect(learnt).toHaveLength(1);
    // the same address, by another name
    await ask({ name: "example.org", from: some });
    expect(learnt.map(({ name }) => name)).toEqual(["example.com", "example.org"]);
    askers[some] = { sandboxId: "some", egress: listed("example.com") };
    await ask({ name: "example.com", from: some });
    expect(learnt).toHaveLength(3);
    await ask({ name: "example.com", from: some });
    expect(learnt).toHaveLength(3);
  });

  test("are learnt again when they are valid for longer", async () => {
    const outside = await outsideThat(everywhere(public1, 5));
    const clock = { nowMs: 0 };
    const { ask, learnt } = await insideWith({ sandboxes, outside: [outside], clock });
    await ask({ name: "example.com", from: some });
    clock.nowMs += 5_000;
    await ask({ name: "example.com", from: some });
    expect(outside.asked).toHaveLength(2);
    expect(learnt.map(({ ttlMs }) => ttlMs)).toEqual([65_000, 65_000]);
  });

  test("are learnt again after a while, whatever the kernel lost meanwhile", async () => {
    const outside = await outsideThat(everywhere(public1, 100));
    const clock = { nowMs: 0 };
    const { ask, learnt } = await insideWith({ sandboxes, outside: [outside], clock });
    await ask({ name: "example.com", from: some });
    clock.nowMs += 10_000;
    await ask({ name: "example.com", from: some });
    expect(learnt.map(({ ttlMs }) => ttlMs)).toEqual([160_000, 150_000]);
  });

  test("are not learnt where all that is public may be reached", async () => {
    const outside = await outsideThat(everywhere());
    const { ask, learnt } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "example.com" })).code).toBe(codes.NOERROR);
    expect(learnt).toEqual([]);
  });
});

describe("what is known", () => {
  test("is not asked again until it is no longer valid", async () => {
    const outside = await outsideThat(everywhere(public1, 30));
    const clock = { nowMs: 0 };
    const { ask } = await insideWith({ sandboxes, outside: [outside], clock });
    await ask({ name: "example.com" });
    clock.nowMs += 29_500;
    expect((await ask({ name: "EXAMPLE.com" })).ttls).toEqual([1]);
    expect(outside.asked).toHaveLength(1);
    clock.nowMs += 500;
    expect((await ask({ name: "example.com" })).ttls).toEqual([30]);
    expect(outside.asked).toHaveLength(2);
  });

  test.each([
    [0, 1],
    [7 * 86_400, 3_600],
    [2 ** 31, 1],
  ])("is valid for at least a second and at most an hour: %i s are %i s", async (ttl, expected) => {
    const outside = await outsideThat(everywhere(public1, ttl));
    const { ask } = await insideWith({ sandboxes, outside: [outside], clock: { nowMs: 0 } });
    expect((await ask({ name: "example.com" })).ttls).toEqual([expected]);
  });

  test.each([
    ["as its zone says", [soa("com", 600, 20)], 20],
    ["no longer than the zone's own record", [soa("com", 10, 600)], 10],
    ["no longer than five minutes", [soa("com", 86_400, 86_400)], 300],
    ["not at all without one", [], 0],
  ])("that is not there is known %s", async (_, authorities, seconds) => {
    const outside = await outsideThat(() => ({ code: codes.NXDOMAIN, authorities }));
    const clock = { nowMs: 0 };
    const { ask } = await insideWith({ sandboxes, outside: [outside], clock });
    await ask({ name: "nothing.com" });
    clock.nowMs += seconds * 1_000 - 1;
    expect((await ask({ name: "nothing.com" })).code).toBe(codes.NXDOMAIN);
    expect(outside.asked).toHaveLength(seconds === 0 ? 2 : 1);
    clock.nowMs += 1;
    await ask({ name: "nothing.com" });
    expect(outside.asked).toHaveLength(seconds === 0 ? 3 : 2);
  });

  test("is asked once, however many wait for it", async () => {
    const outside = await outsideThat(async (asked) => {
      await sleep(50);
      return everywhere()(asked);
    });
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    const told = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        ask({ name: "example.com", from: index % 2 ? some : "127.0.0.2" }),
      ),
    );
    expect(told.map(({ code }) => code)).toEqual(told.map(() => codes.NOERROR));
    expect(outside.asked).toHaveLength(1);
  });

  test("is forgotten with its gateway", async () => {
    const outside = await outsideThat(everywhere());
    const { ask, resolver } = await insideWith({ sandboxes, outside: [outside] });
    await ask({ name: "example.com" });
    await resolver.unlisten(gateway);
    await resolver.listen(gateway);
    await ask({ name: "example.com" });
    expect(outside.asked).toHaveLength(2);
  });
});

describe("nameservers outside", () => {
  test("one that is silent is followed by the next, and asked last from then on", async () => {
    const silent = await outsideThat(() => undefined);
    const other = await outsideThat(everywhere());
    const clock = { nowMs: 0 };
    const { ask } = await insideWith({ sandboxes, outside: [silent, other], clock });
    expect((await ask({ name: "a.com" })).code).toBe(codes.NOERROR);
    expect((await ask({ name: "b.com" })).code).toBe(codes.NOERROR);
    expect(silent.asked).toHaveLength(1);
    clock.nowMs += 30_000;
    await ask({ name: "c.com" });
    expect(silent.asked).toHaveLength(2);
  });

  test("one that is not there is followed by the next", async () => {
    const gone = await startOutside(() => undefined);
    await gone.close();
    const other = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [gone, other] });
    expect((await ask({ name: "a.com" })).code).toBe(codes.NOERROR);
  });

  test.each([codes.SERVFAIL, codes.REFUSED])("one that says %i is followed by the next", async (code) => {
    const failing = await outsideThat(() => ({ code }));
    const other = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [failing, other] });
    expect((await ask({ name: "a.com" })).code).toBe(codes.NOERROR);
    expect(failing.asked).toHaveLength(1);
  });

  test("what none of them answers fails while the client listens, and is not asked again for a second", async () => {
    const silent = await outsideThat(() => undefined);
    const clock = { nowMs: 0 };
    const { ask } = await insideWith({ sandboxes, outside: [silent], clock });
    expect((await ask({ name: "a.com" })).code).toBe(codes.SERVFAIL);
    expect(silent.asked).toHaveLength(2);
    expect((await ask({ name: "a.com" })).code).toBe(codes.SERVFAIL);
    expect(silent.asked).toHaveLength(2);
    clock.nowMs += 1_000;
    await ask({ name: "a.com" });
    expect(silent.asked).toHaveLength(4);
  });

  test("without any, names fail", async () => {
    const { ask } = await insideWith({ sandboxes });
    expect((await ask({ name: "a.com" })).code).toBe(codes.SERVFAIL);
  });

  test("an answer that does not fit is asked for again by TCP", async () => {
    const outside = await outsideThat(({ name }) => ({ truncated: true, answers: [a(name, public1)] }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "a.com" })).records).toEqual([`a.com A ${public1}`]);
    expect(outside.asked.map(({ transport }) => transport)).toEqual(["udp", "tcp"]);
  });

  test("an answer that is too long even for that is none", async () => {
    const data = Array.from({ length: 60 }, () => "x".repeat(200));
    const outside = await outsideThat(({ name, transport }) => ({
      truncated: true,
      answers: transport === "udp" ? [] : [{ type: "TXT", name, ttl: 60, data }],
    }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "a.com", type: "TXT" })).code).toBe(codes.SERVFAIL);
    expect(outside.asked.map(({ transport }) => transport)).toContain("tcp");
  });

  test("each question comes from another port, with another id", async () => {
    const outside = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    for (let index = 0; index < 20; index += 1) await ask({ name: `n${index}.com` });
    const ids = outside.asked.map(({ packet }) => packet.id ?? 0);
    expect(new Set(ids).size).toBeGreaterThan(15);
    expect(ids.some((id, index) => index > 0 && id - (ids[index - 1] ?? 0) !== 1)).toBe(true);
  });
});

describe("answers that are none to what was asked are not believed", () => {
  const lie = a("a.com", "6.6.6.6");
  const lies: readonly (readonly [string, (asked: Asked) => Said])[] = [
    ["another id", ({ packet }) => ({ change: { id: ((packet.id ?? 0) + 1) % 65_536 }, answers: [lie] })],
    ["another port", () => ({ fromElsewhere: true, answers: [lie] })],
    [
      "another name",
      () => ({ change: { questions: [{ name: "b.com", type: "A", class: "IN" }] }, answers: [lie] }),
    ],
    [
      "another type",
      () => ({ change: { questions: [{ name: "a.com", type: "TXT", class: "IN" }] }, answers: [lie] }),
    ],
    ["no question", () => ({ change: { questions: [] }, answers: [lie] })],
    ["a query", () => ({ change: { type: "query" }, answers: [lie] })],
  ];

  test.each(lies)("%s", async (_, say) => {
    const liar = await outsideThat(say);
    const honest = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [liar, honest] });
    expect((await ask({ name: "a.com" })).records).toEqual([`a.com A ${public1}`]);
    expect(liar.asked.length).toBeGreaterThan(0);
  });

  test("also not by TCP", async () => {
    const liar = await outsideThat(({ name, packet, transport }) => ({
      truncated: true,
      answers: [a(name, "6.6.6.6")],
      change: transport === "tcp" ? { id: ((packet.id ?? 0) + 1) % 65_536 } : {},
    }));
    const honest = await outsideThat(everywhere());
    const { ask } = await insideWith({ sandboxes, outside: [liar, honest] });
    expect((await ask({ name: "a.com" })).records).toEqual([`a.com A ${public1}`]);
    expect(liar.asked.map(({ transport }) => transport)).toEqual(["udp", "tcp"]);
  });

  test("and the right one is, though it comes after them", async () => {
    const outside = await outsideThat(({ name, packet }) => ({
      before: [
        Buffer.from("garbage"),
        dnsPacket.encode({
          type: "response",
          id: ((packet.id ?? 0) + 1) % 65_536,
          questions: [{ name, type: "A", class: "IN" }],
          answers: [a(name, "6.6.6.6")],
        }),
      ],
      answers: [a(name, public1)],
    }));
    const { ask } = await insideWith({ sandboxes, outside: [outside] });
    expect((await ask({ name: "a.com" })).records).toEqual([`a.com A ${public1}`]);
    expect(outside.asked).toHaveLength(1);
  });
});
