// Signals that this program gets on behalf of the process that it runs.

/** Not SIGCHLD, SIGPIPE, SIGWINCH and those of job control, which are about this program itself. */
const passedOn = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM"] as const;

/** So many that ask a program to end, and it has not: then this one ends without it. As the Docker CLI. */
const mostAsked = 3;

/** Calls back for each signal, until the abort. */
export function passSignals(send: (signal: NodeJS.Signals) => void, signal: AbortSignal): void {
  let asked = 0;
  const onSignal = (name: NodeJS.Signals, number: number) => {
    if (name === "SIGINT" || name === "SIGTERM") asked += 1;
    if (asked > mostAsked) process.exit(128 + number);
    send(name);
  };
  for (const name of passedOn) process.on(name, onSignal);
  signal.addEventListener(
    "abort",
    () => {
      for (const name of passedOn) process.off(name, onSignal);
    },
    { once: true },
  );
}
