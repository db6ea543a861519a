import { expect, test } from "vitest";
import { cidrText } from "../../../src/network/addresses.ts";
import { hasInterface, routedBlocks } from "../../../src/network/routes.ts";

const routes = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t0102030A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
sbx01234567\t0000D50A\t00000000\t0001\t0\t0\t0\t80FFFFFF\t0\t0\t0
`;

test("the blocks of other interfaces are routed, the default route and one's own are not", () => {
  expect(routedBlocks("sbx", routes).map(cidrText)).toEqual([
    "192.168.0.0/24",
    "172.17.0.0/16",
    "10.3.2.1/32",
  ]);
  expect(routedBlocks("none", routes).map(cidrText)).toContain("10.213.0.0/25");
});

test("the machine's own table can be read", () => {
  expect(routedBlocks("sbx")).toBeInstanceOf(Array);
  expect(hasInterface("lo")).toBe(true);
  expect(hasInterface("l")).toBe(false);
});
