// What is this machine and nothing else.
import { BlockList, isIP } from "node:net";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Whether the host is "localhost" or a loopback address. */
export function isLoopbackHost(host: string): boolean {
  const family = isIP(host);
  return family === 0
    ? host.toLowerCase() === "localhost"
    : loopback.check(host, family === 6 ? "ipv6" : "ipv4");
}
