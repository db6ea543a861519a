// A container that ran once is bound to the network that it was on, not to one of that name: where somebody removed the network, and
// the daemon made it anew, the container is connected again as it was.

import type Docker from "dockerode";
import type { ContainerInspectInfo } from "dockerode";
import { messageOf } from "../errors.ts";
import { type Attempt, orFailure, statusOf, unless } from "./calls.ts";

/** Whether a start failed because the container's network is no more. */
export function lostItsNetwork(error: unknown): boolean {
  return statusOf(error) === 404 && /network \S+ not found/.test(messageOf(error));
}

/**
 * Connects a container that does not run to the network that has the name of its own now, with the same address. False if there is
 * none, or it was never given an address. @throws SandboxdError.
 */
export async function reconnect(docker: Docker, attempt: Attempt, id: string): Promise<boolean> {
  const found = await orFailure(
    "inspect",
    attempt("inspect", (abortSignal) => docker.getContainer(id).inspect({ abortSignal })),
  );
  const own = ownEndpoint(found);
  if (own === undefined) return false;
  const network = docker.getNetwork(own.network);
  const away = attempt("update", (abortSignal) =>
    network.disconnect({ Container: id, Force: true, abortSignal }).then(() => true),
  );
  if ((await unless([404], "update", away)) === undefined) return false;
  const EndpointConfig = { IPAMConfig: { IPv4Address: own.address }, MacAddress: own.mac };
  await orFailure(
    "update",
    attempt("update", () => network.connect({ Container: id, EndpointConfig })),
  );
  return true;
}

/** As it was asked for when the container was made. */
function ownEndpoint({ Config: config, HostConfig: host, NetworkSettings: settings }: ContainerInspectInfo) {
  const network = host.NetworkMode ?? "";
  const endpoint = settings.Networks[network];
  const address: unknown = endpoint?.IPAMConfig?.IPv4Address;
  if (endpoint === undefined || typeof address !== "string" || address === "") return undefined;
  const general = (config as { readonly MacAddress?: string }).MacAddress ?? "";
  return { network, address, mac: endpoint.MacAddress === "" ? general : endpoint.MacAddress };
}
