// From the command line to what was asked.

import { parseCommand, usage } from "./cli/args.ts";
import { checkConfig } from "./cli/config-check.ts";
import { version } from "./version.ts";

const command = parseCommand(process.argv.slice(2));
switch (command.command) {
  case "serve": {
    const { serve } = await import("./serve.ts");
    await serve(command);
    break;
  }
  case "config-check":
    process.exitCode = checkConfig({
      ...command,
      env: process.env,
      stdout: process.stdout,
      stderr: process.stderr,
    });
    break;
  case "dev-scheduler": {
    const [{ runDevScheduler }, { createLog }] = await Promise.all([
      import("./dev-scheduler/run.ts"),
      import("./observe/log.ts"),
    ]);
    const { host, port } = command.listen;
    process.exitCode = await runDevScheduler({
      listen: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
      json: command.json,
      stdout: process.stdout,
      // what it prints is for people; its log is for those who look for trouble
      log: createLog({ level: "warn" }).pino,
    });
    break;
  }
  case "version":
    process.stdout.write(`sandboxd ${version}\n`);
    break;
  case "help":
    process.stdout.write(usage);
    break;
  case "usage-error":
    process.stderr.write(`${command.message}\n`);
    process.exitCode = 2;
}
