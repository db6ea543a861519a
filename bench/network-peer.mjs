// One end of a transfer: `receive PORT` takes connections and tells how many bytes each had; `send ADDRESS PORT BYTES` sends so many and
// tells how many milliseconds it took until the other end had them.
import { connect, createServer } from "node:net";

const [role, ...rest] = process.argv.slice(2);
const chunk = Buffer.alloc(256 * 1_024);

if (role === "receive") {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.resume();
    socket.on("end", () => socket.end("done"));
    socket.on("error", () => socket.destroy());
  });
  server.listen(Number(rest[0]), () => console.log("ready"));
} else {
  const [address, port, bytes] = rest;
  const socket = connect({ host: address, port: Number(port), allowHalfOpen: true });
  socket.once("connect", async () => {
    const began = performance.now();
    for (let left = Number(bytes); left > 0; left -= chunk.length) {
      if (!socket.write(chunk)) await new Promise((resolve) => socket.once("drain", resolve));
    }
    socket.end();
    await new Promise((resolve) => socket.once("data", resolve));
    console.log(performance.now() - began);
    socket.destroy();
  });
}
