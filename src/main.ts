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
    const { runDevScheduler } = await import("./dev-scheduler/run.ts");
    await runDevScheduler(command);
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
