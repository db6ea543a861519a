// A nameserver for tests: answers on the address and port given for the names given as JSON, { "name": ["address", ...] }, and says of
// every other that there is none. Prints a line for each question.
import { createSocket } from "node:dgram";
import dnsPacket from "dns-packet";

const [address, port, names] = process.argv.slice(2);
const known = new Map(Object.entries(JSON.parse(names)));
const socket = createSocket("udp4");
socket.on("message", (message, { address: from, port: fromPort }) => {
  const { id, questions } = dnsPacket.decode(message);
  const [question] = questions;
  console.log(question.name);
  const found = question.type === "A" ? known.get(question.name.toLowerCase()) : undefined;
  const answer = {
    id,
    type: "response",
    flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | (found === undefined ? 3 : 0),
    questions,
    answers: (found ?? []).map((data) => ({ type: "A", name: question.name, ttl: 30, data })),
  };
  socket.send(dnsPacket.encode(answer), fromPort, from);
});
socket.bind(Number(port), address, () => console.log("ready"));
