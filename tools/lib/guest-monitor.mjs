// Commands to the emulator of a guest, over its monitor's socket.
import { connect } from "node:net";
import { createInterface } from "node:readline";

const timeoutMs = 120_000;

/** Runs one command of the emulator's monitor, such as `savevm TAG`. Fails with its words: when it succeeds it has none. */
export function monitor(socket, command) {
  return new Promise((resolve, reject) => {
    const connection = connect(socket);
    const fail = (why) => reject(new Error(`the emulator did not ${command}: ${why}`));
    connection.setTimeout(timeoutMs, () => connection.destroy(new Error("silence")));
    connection.on("error", (error) => fail(error.message));
    connection.on("close", () => fail("it hung up"));
    const send = (execute, args) => connection.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const steps = [
      // It greets, and takes commands once its features were agreed on.
      () => send("qmp_capabilities"),
      () => send("human-monitor-command", { "command-line": command }),
      ({ return: words, error }) => {
        if (error === undefined && words === "") resolve();
        else fail(error?.desc ?? words.trim());
        connection.end();
      },
    ];
    createInterface(connection).on("line", (line) => {
      const message = JSON.parse(line);
      // What it tells unasked is of no interest.
      if (message.event === undefined) steps.shift()?.(message);
    });
  });
}
