// Loads the Docker client, without what it brings for engines behind SSH and for builds: code of 1 MB, several in memory.

import { createRequire, registerHooks } from "node:module";
import type Docker from "dockerode";

/** Asked for where the client is loaded, and used only for what the daemon never does. */
const unused: ReadonlySet<string> = new Set(["ssh2", "@grpc/grpc-js", "@grpc/proto-loader"]);

function loadClient(): typeof Docker {
  const hooks = registerHooks({
    // any small module does in their place
    resolve: (specifier, context, next) => next(unused.has(specifier) ? "node:events" : specifier, context),
  });
  try {
    return createRequire(import.meta.url)("dockerode");
  } finally {
    hooks.deregister();
  }
}

export const DockerClient = loadClient();
