// The forwarder inside, and the daemon's side of it, on this machine: what a program at a port and a caller notice of each other.

import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { frame, request, writer } from "../../../src/toolbox/protocol.ts";
import { becomes } from "../toolbox/keeper-fixture.ts";
import { connected, openBench, readAll, serve } from "./fixture.ts";

const mebibyte = 1024 * 1024;
const echo = (socket: Socket) => void socket.pipe(socket);
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Bytes that this machine's kernel lets a TCP connection have on their way, with a fast program as many as that. */
function mostInKernel(): number {
  const most = (name: string) => Number(readFileSync(`/proc/sys/net/ipv4/${name}`, "utf8").split("\t")[2]);
  return most("tcp_rmem") + most("tcp_wmem");
}

describe("a connection to a port", () => {
  test("carries bytes both ways, and each direction ends by itself", async () => {
    const { connect } = await openBench();
    const heard: Buffer[] = [];
    const { port } = await serve((socket) => {
      socket.on("data", (bytes: Buffer) => heard.push(bytes));
      socket.on("end", () => socket.end(`heard ${Buffer.concat(heard).toString()}`));
    });
    const connection = await connect(port);
    await connection.send(Buffer.from("one "));
    await connection.send(Buffer.from("two"));
    connection.end();
    expect((await readAll(connection)).toString()).toBe("heard one two");
    connection.close();
  });

  test("can be sent to after the program inside has ended its half", async () => {
    const { connect } = await openBench();
    const heard: Buffer[] = [];
    const { port, sockets } = await serve((socket) => {
      socket.end("first and last");
      socket.on("data", (bytes: Buffer) => heard.push(bytes));
    });
    const connection = await connect(port);
    expect((await readAll(connection)).toString()).toBe("first and last");
    const [socket] = sockets;
    const ended = once(socket as Socket, "end");
    await connection.send(Buffer.from("still here"));
    connection.end();
    // right after its last word: what was said before must arrive all the same
    connection.close();
    await ended;
    expect(Buffer.concat(heard).toString()).toBe("still here");
  });

  test("carries much in both directions at once, byte for byte", async () => {
    const { connect } = await openBench();
    const { port } = await serve(echo);
    const sent = randomBytes(24 * mebibyte + 17);
    const connection = await connect(port);
    const received = readAll(connection);
    for (let from = 0; from < sent.length; from += 700_000)
      await connection.send(sent.subarray(from, from + 700_000));
    connection.end();
    expect(sha256(await received)).toBe(sha256(sent));
    connection.close();
  });

  test("many at once carry each their own", async () => {
    const { connect, forwarderPids } = await openBench();
    const { port } = await serve(echo);
    await Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const sent = Buffer.alloc(50_000 + index, index);
        const connection = await connect(port);
        void connection.send(sent).then(() => connection.end());
        expect(sha256(await readAll(connection))).toBe(sha256(sent));
        connection.close();
      }),
    );
    expect(forwarderPids()).toHaveLength(1);
  });

  test("that brings much is carried byte for byte, also beside others of which nobody takes anything for a while", async () => {
    const { connect, forwarderPids } = await openBench();
    const contents = Array.from({ length: 4 }, () => randomBytes(12 * mebibyte + 5));
    const { port } = await serve((socket) =>
      socket.once("data", ([index = 0]: Buffer) => socket.end(contents[index] ?? "")),
    );
    const connections = await Promise.all(contents.map(() => connect(port)));
    await Promise.all(connections.map((connection, index) => connection.send(Buffer.from([index]))));
    const [first, second, ...late] = connections.map((connection, index) => async () => {
      const received = await readAll(connection);
      expect(sha256(received)).toBe(sha256(contents[index] ?? Buffer.alloc(0)));
      connection.end();
      connection.close();
    });
    // by the pipe, of which there is one
    await becomes("it is there", () => pipesOf(forwarderPids()[0]) === 2);
    await Promise.all([first?.(), second?.()]);
    await Promise.all(late.map((read) => read()));
  });

  test("that brings much is copied where there is no descriptor for a pipe", async () => {
    const { connect, forwarderPids } = await openBench({ limits: ["--nofile=8"] });
    const content = randomBytes(12 * mebibyte + 5);
    const { port } = await serve((socket) => socket.end(content));
    const connection = await connect(port);
    const parts = [await connection.receive()];
    expect(pipesOf(forwarderPids()[0])).toBe(0);
    parts.push(await readAll(connection));
    expect(sha256(Buffer.concat(parts.map((part) => part ?? Buffer.alloc(0))))).toBe(sha256(content));
    connection.close();
  });

  test("that breaks off in the middle of much has brought the beginning of it", async () => {
    const { connect } = await openBench();
    const content = randomBytes(8 * mebibyte);
    const { port } = await serve((socket) => {
      socket.write(content);
      socket.once("data", () => socket.resetAndDestroy());
    });
    const connection = await connect(port);
    const parts: Buffer[] = [];
    const all = async () => {
      for (;;) {
        const bytes = await connection.receive();
        if (bytes === undefined) return;
        parts.push(bytes);
        if (parts.length === 4) await connection.send(Buffer.from("enough"));
      }
    };
    await expect(all()).rejects.toMatchObject({ reason: "PORT_UNREACHABLE" });
    const received = Buffer.concat(parts);
    expect(received.length).toBeGreaterThan(0);
    expect(received.equals(content.subarray(0, received.length))).toBe(true);
  });

  test("finds a program that listens on ::1 alone", async () => {
    const { connect } = await openBench();
    const { port } = await serve((socket) => socket.end("six"), "::1");
    const connection = await connect(port);
    expect((await readAll(connection)).toString()).toBe("six");
    connection.close();
  });

  test("to a port on which nobody listens is refused", async () => {
    const { connect } = await openBench();
    const { port, server } = await serve(echo);
    (await connect(port)).close();
    server.close();
    await becomes("nobody listens", () => !server.listening);
    await expect(connect(port)).rejects.toMatchObject({
      reason: "PORT_UNREACHABLE",
      details: { metadata: { port: String(port), errno: "ECONNREFUSED" } },
    });
  });

  test("that the program inside resets is told as broken, and not as ended", async () => {
    const { connect } = await openBench();
    const { port } = await serve((socket) => {
      socket.write("some", () => setTimeout(() => socket.resetAndDestroy(), 50));
    });
    const connection = await connect(port);
    expect((await connection.receive())?.toString()).toBe("some");
    await expect(connection.receive()).rejects.toMatchObject({
      reason: "PORT_UNREACHABLE",
      details: { metadata: { errno: "ECONNRESET" } },
    });
    await expect(connection.send(Buffer.from("more"))).rejects.toMatchObject({ reason: "PORT_UNREACHABLE" });
  });

  test("carries what a program inside said before it closed in the middle of what it was sent", async () => {
    const { connect } = await openBench();
    const { port } = await serve((socket) => {
      // as a server that refuses a body: it answers, and closes with bytes unread
      socket.once("data", () => {
        socket.pause();
        socket.write(Buffer.alloc(20_000, "n"), () => socket.destroy());
      });
    });
    const connection = await connect(port);
    const sending = (async () => {
      for (let count = 0; count < 200; count += 1) await connection.send(Buffer.alloc(65_536));
    })().catch((error: unknown) => error);
    let received = 0;
    const reading = (async () => {
      for (;;) received += (await connection.receive())?.length ?? Number.NaN;
    })();
    await expect(reading).rejects.toMatchObject({ reason: "PORT_UNREACHABLE" });
    expect(received).toBe(20_000);
    await sending;
  });

  test("that the caller lets go of is reset for the program inside", async () => {
    const { connect } = await openBench();
    const errors: unknown[] = [];
    const { port, sockets } = await serve((socket) => {
      socket.on("error", (error) => errors.push(error));
      socket.on("data", (bytes) => socket.write(bytes));
    });
    const connection = await connect(port);
    await connection.send(Buffer.from("half a req"));
    await connection.receive();
    connection.close();
    await becomes("the program inside is told", () => sockets.size === 0);
    expect(errors).toMatchObject([{ code: "ECONNRESET" }]);
    await expect(connection.receive()).rejects.toMatchObject({ reason: "PORT_UNREACHABLE" });
  });

  test("holds a program back whose output nobody takes, and what is in between does not grow", async () => {
    const { connect, forwarderPids } = await openBench();
    let written = 0;
    const { port } = await serve((socket) => {
      const block = Buffer.alloc(65_536);
      const go = () => {
        while (socket.write(block)) written += block.length;
        written += block.length;
      };
      socket.on("drain", go);
      go();
    });
    const connection = await connect(port);
    await connection.receive();
    await becomes("it is held back", async () => {
      const before = written;
      await sleep(150);
      return written === before;
    });
    expect(written).toBeLessThan(mostInKernel() + 8 * mebibyte);
    const [pid] = forwarderPids();
    expect(residentBytes(pid ?? 0)).toBeLessThan(2 * mebibyte);
    // and goes on once it is taken
    const before = written;
    for (let taken = 0; taken < before + mebibyte; ) taken += (await connection.receive())?.length ?? 0;
    expect(written).toBeGreaterThan(before);
    connection.close();
  });

  test("holds a caller back whose bytes nobody takes inside", async () => {
    const { connect, forwarderPids } = await openBench();
    let taken = 0;
    const { port, sockets } = await serve((socket) => {
      socket.pause();
      socket.on("data", (bytes) => (taken += bytes.length));
      socket.pause();
    });
    const connection = await connect(port);
    const block = Buffer.alloc(65_536);
    let sent = 0;
    const sending = (async () => {
      while (sent < 40 * mebibyte) {
        await connection.send(block);
        sent += block.length;
      }
      connection.end();
    })();
    await becomes("it is held back", async () => {
      const before = sent;
      await sleep(150);
      return sent > 0 && sent === before;
    });
    expect(sent).toBeLessThan(24 * mebibyte);
    expect(residentBytes(forwarderPids()[0] ?? 0)).toBeLessThan(2 * mebibyte);
    for (const socket of sockets) socket.resume();
    await sending;
    await becomes("all has arrived", () => taken === 40 * mebibyte);
    connection.close();
  });

  test("that is waited for ends with its signal", async () => {
    const bench = await openBench();
    // takes connections, and answers none
    const silent = createServer(() => undefined);
    const path = join(bench.toolbox.directory, "forward.sock");
    silent.listen(path);
    await once(silent, "listening");
    onTestFinished(() => void silent.close());
    const abort = new AbortController();
    const connecting = bench.forwarders.connect({ sandboxId: "one", port: 1 }, { signal: abort.signal });
    setTimeout(() => abort.abort(new Error("enough")), 50);
    await expect(connecting).rejects.toThrow("enough");
  });
});

describe("the forwarder", () => {
  test("is started once, by whoever comes first", async () => {
    const { connect, starts, forwarderPids } = await openBench();
    const { port } = await serve((socket) => socket.end("hello"));
    const connections = await Promise.all(Array.from({ length: 8 }, () => connect(port)));
    expect(starts()).toBe(1);
    expect(forwarderPids()).toHaveLength(1);
    for (const connection of connections) connection.close();
  });

  test("is one also where two daemons start it at once", async () => {
    const bench = await openBench();
    const ask = async () => {
      const connection = await bench.toolbox.open();
      await connection.send(request().u32(60_000).frame(frame.forward));
      const answer = await connection.receive();
      connection.close();
      return answer?.type;
    };
    const answers = await Promise.all(Array.from({ length: 6 }, ask));
    expect(answers.filter((type) => type === frame.ready)).toHaveLength(1);
    expect(answers.filter((type) => type === frame.error)).toHaveLength(5);
    await becomes("the others have ended", () => bench.forwarderPids().length === 1);
  });

  test("ends when nobody had a connection for its time, and is there again for the next", async () => {
    const { connect, forwarderPids, isThere, starts } = await openBench({ idleMs: 120 });
    const { port } = await serve(echo);
    const connection = await connect(port);
    await sleep(300);
    expect(forwarderPids()).toHaveLength(1);
    connection.close();
    await becomes("it has ended", () => forwarderPids().length === 0);
    expect(isThere()).toBe(false);
    (await connect(port)).close();
    expect(starts()).toBe(2);
  });

  test("that ends all the time is never noticed", async () => {
    const { connect } = await openBench({ idleMs: 1 });
    const { port } = await serve((socket) => socket.end("hello"));
    for (let count = 0; count < 150; count += 1) {
      const connection = await connect(port);
      expect((await readAll(connection)).toString()).toBe("hello");
      connection.end();
      connection.close();
      await sleep(count % 4);
    }
  });

  test("that was killed breaks its connections, and is replaced", async () => {
    const { connect, forwarderPids, starts } = await openBench();
    const { port, sockets } = await serve(echo);
    const connection = await connect(port);
    const receiving = connection.receive();
    for (const pid of forwarderPids()) process.kill(pid, "SIGKILL");
    await expect(receiving).rejects.toMatchObject({ reason: "PORT_UNREACHABLE" });
    await becomes("the program inside is told", () => sockets.size === 0);
    const next = await connect(port);
    await next.send(Buffer.from("again"));
    expect((await next.receive())?.toString()).toBe("again");
    expect(starts()).toBe(2);
    next.close();
  });

  test("refuses more connections than it has files for, and serves those that it has", async () => {
    const { connect } = await openBench({ limits: ["--nofile=40"] });
    const { port } = await serve(echo);
    const connections = await Promise.all(Array.from({ length: 12 }, () => connect(port)));
    await expect(connect(port)).rejects.toMatchObject({ reason: "TOO_MANY_STREAMS" });
    await connections[0]?.send(Buffer.from("ping"));
    expect((await connections[0]?.receive())?.toString()).toBe("ping");
    connections.pop()?.close();
    await becomes("one more is taken", () =>
      connect(port).then(
        (connection) => connections.push(connection) > 0,
        () => false,
      ),
    );
    for (const connection of connections) connection.close();
  });

  test("answers what is no greeting with an error, and goes on", async () => {
    const bench = await openBench();
    const { port } = await serve((socket) => socket.end("fine"));
    (await bench.connect(port)).close();
    const path = join(bench.toolbox.directory, "forward.sock");
    const answerTo = async (...said: readonly Buffer[]) => {
      const connection = await connected(path);
      for (const one of said) await connection?.send(one);
      const types: (number | undefined)[] = [];
      while (types.at(-1) !== frame.error) types.push((await connection?.receive())?.type);
      connection?.close();
      return types;
    };
    expect(await answerTo(writer().bytes(randomBytes(64)).frame(frame.data))).toEqual([frame.error]);
    expect(await answerTo(writer().u8(9).u16(port).frame(frame.connect))).toEqual([frame.error]);
    // a frame that is none, behind a good greeting
    const { port: listening } = await serve((socket) => void socket.resume());
    const good = request().u16(listening).frame(frame.connect);
    for (const bad of [Buffer.alloc(16, 0xff), Buffer.alloc(16), writer().frame(frame.ping)])
      expect(await answerTo(good, bad)).toEqual([frame.ready, frame.error]);
    // more after the end
    const end = writer().frame(frame.eof);
    expect(await answerTo(good, Buffer.concat([end, end]))).toEqual([frame.ready, frame.error]);
    expect((await readAll(await bench.connect(port))).toString()).toBe("fine");
  });

  test("takes frames that are cut anywhere", async () => {
    const bench = await openBench();
    const { port } = await serve(echo);
    (await bench.connect(port)).close();
    const socket = await connected(join(bench.toolbox.directory, "forward.sock"));
    const said = Buffer.concat([
      request().u16(port).frame(frame.connect),
      writer().bytes(Buffer.from("abc")).frame(frame.data),
      writer().bytes(Buffer.from("defgh")).frame(frame.data),
      writer().frame(frame.eof),
    ]);
    for (const byte of said) {
      await socket?.send(Buffer.from([byte]));
      await sleep(2);
    }
    let text = "";
    expect((await socket?.receive())?.type).toBe(frame.ready);
    for (;;) {
      const next = await socket?.receive();
      if (next?.type !== frame.data) break;
      text += next.payload.toString();
    }
    expect(text).toBe("abcdefgh");
  });
});

describe("what takes the forwarder's place", () => {
  const impersonated = async (answer: (socket: Socket) => void) => {
    const bench = await openBench();
    const impostor = createServer((socket) => {
      socket.on("error", () => undefined);
      answer(socket);
    });
    impostor.listen(join(bench.toolbox.directory, "forward.sock"));
    await once(impostor, "listening");
    onTestFinished(() => void impostor.close());
    return bench;
  };
  const ready = writer().frame(frame.ready);

  test("is not believed", async () => {
    const { connect } = await impersonated((socket) => socket.end(Buffer.alloc(64, 0xff)));
    await expect(connect(80)).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
    const late = await impersonated((socket) =>
      socket.write(Buffer.concat([ready, writer().frame(frame.pong)])),
    );
    const connection = await late.connect(80);
    await expect(connection.receive()).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
  });

  test("and closes at once is given up after a few tries", async () => {
    const { connect } = await impersonated((socket) => socket.destroy());
    await expect(connect(80)).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
  });
});

/** Ends of pipes that a process has, beyond its standard streams. */
function pipesOf(pid = 0): number {
  const directory = `/proc/${pid}/fd`;
  const own = readdirSync(directory).filter((name) => Number(name) > 2);
  return own.filter((name) => readlinkSync(join(directory, name)).startsWith("pipe:")).length;
}

function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}
