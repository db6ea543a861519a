// Connections to the engine that are kept between calls: a handshake less for each.

import { inspect } from "node:util";
import { Agent } from "../http.ts";

/** At most so many calls at once; the engine serves far fewer at a time. */
const mostSockets = 64;

/**
 * An agent for the Docker client. The client formats each request it sends, to any depth, for a debug message that is then
 * dropped; an agent holds every socket and what was last said on it, which makes that milliseconds a call. This one
 * shows nothing of itself.
 */
export function createAgent(): InstanceType<typeof Agent> {
  return Object.assign(new Agent({ keepAlive: true, maxSockets: mostSockets }), {
    [inspect.custom]: () => "Agent",
  });
}

/** Closes the connections that wait for their next call. */
export function dropKept(agent: InstanceType<typeof Agent>): void {
  for (const sockets of Object.values(agent.freeSockets)) {
    for (const socket of sockets ?? []) socket.destroy();
  }
}
