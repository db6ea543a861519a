// The client of bench/resolver.ts: ADDRESS COUNT NAME... asks for the names by turns and prints how long each answer took, as a JSON
// array of milliseconds. What is asked for the first time is not told.

import { createSocket } from "node:dgram";
import { once } from "node:events";
import dnsPacket from "dns-packet";

const [address = "", count = "", ...names] = process.argv.slice(2);
const socket = createSocket("udp4");
socket.connect(53, address);
await once(socket, "connect");

const values: number[] = [];
/** Also for what the programs have to warm up. */
const untold = Math.max(names.length, 200);
for (let index = -untold; index < Number(count); index += 1) {
  const name = names[(index + untold) % names.length] ?? "";
  const message = dnsPacket.encode({
    type: "query",
    id: (index + untold) % 65_536,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type: "A", name, class: "IN" }],
  });
  const began = performance.now();
  socket.send(message);
  const [answer] = (await once(socket, "message")) as [Buffer];
  const took = performance.now() - began;
  if (dnsPacket.decode(answer).answers?.length !== 1) throw new Error(`${name} was not answered`);
  if (index >= 0) values.push(took);
}
socket.close();
console.log(JSON.stringify(values));
