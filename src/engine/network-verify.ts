// Compares how the engine says that a container is connected with its plan.

import type { ContainerInspectInfo } from "dockerode";
import type { ContainerNetwork } from "./network-plan.ts";

/** One value that is not as planned. */
interface NetworkDifference {
  readonly field: string;
  readonly expected: unknown;
  readonly actual: unknown;
}

/** Fields of an endpoint that say how it is to be; the others say how it is, or was when the container last ran. */
interface Asked {
  readonly IPAMConfig?: Readonly<Record<string, unknown>> | null;
  readonly Links?: readonly string[] | null;
  readonly Aliases?: readonly string[] | null;
  readonly DriverOpts?: Readonly<Record<string, string>> | null;
  readonly MacAddress?: string;
}

/** The engine names a container on its networks by so much of its id. */
const shortIdLength = 12;

/**
 * Every difference: exactly the network of the plan, with its address and its MAC. Where the engine tells no MAC, as of a container
 * that does not run, what the kernel shows after the start decides.
 */
export function networkDifferences(
  network: ContainerNetwork,
  { Id: id, Config: config, NetworkSettings: settings }: ContainerInspectInfo,
): readonly NetworkDifference[] {
  const endpoints: Readonly<Record<string, Asked>> = settings?.Networks ?? {};
  const names = Object.keys(endpoints);
  const wanted = network.mode === "none" ? "none" : network.network;
  const general = (config as { readonly MacAddress?: string }).MacAddress ?? "";
  const isOnlyOne = names.length === 1 && names[0] === wanted;
  return [
    ...(isOnlyOne ? [] : [{ field: "NetworkSettings.Networks", expected: [wanted], actual: names }]),
    ...(network.mode === "none" && general !== ""
      ? [{ field: "Config.MacAddress", expected: undefined, actual: general }]
      : []),
    ...(network.mode === "none" || !isOnlyOne
      ? []
      : endpointDifferences(network, endpoints[wanted] ?? {}, general, [
          id.slice(0, shortIdLength),
          config.Hostname,
        ])),
  ];
}

function endpointDifferences(
  { network, address, mac }: Extract<ContainerNetwork, { readonly mode: "bridge" }>,
  endpoint: Asked,
  general: string,
  ownNames: readonly string[],
): readonly NetworkDifference[] {
  const field = (name: string) => `NetworkSettings.Networks.${network}.${name}`;
  const asked = Object.entries(endpoint.IPAMConfig ?? {}).filter(([, value]) => isSet(value));
  const isAsPlanned = asked.length === 1 && asked[0]?.[0] === "IPv4Address" && asked[0][1] === address;
  const strangers = (endpoint.Aliases ?? []).filter((name) => !ownNames.includes(name));
  const [own, links, options] = [endpoint.MacAddress ?? "", endpoint.Links, endpoint.DriverOpts];
  return [
    ...(isAsPlanned
      ? []
      : [{ field: field("IPAMConfig"), expected: { IPv4Address: address }, actual: endpoint.IPAMConfig }]),
    ...(general === "" || general === mac
      ? []
      : [{ field: "Config.MacAddress", expected: mac, actual: general }]),
    ...(own === "" || own === mac ? [] : [{ field: field("MacAddress"), expected: mac, actual: own }]),
    ...(strangers.length === 0 ? [] : [{ field: field("Aliases"), expected: ownNames, actual: strangers }]),
    ...(isSet(links) ? [{ field: field("Links"), expected: undefined, actual: links }] : []),
    ...(isSet(options) ? [{ field: field("DriverOpts"), expected: undefined, actual: options }] : []),
  ];
}

function isSet(value: unknown): boolean {
  if (value === undefined || value === null || value === "") return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}
