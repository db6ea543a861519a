// The configuration that npm start writes for the daemon.

/** A TOML string. JSON's escapes are a subset of TOML's. */
const quoted = JSON.stringify;

/**
 * The text of a configuration for development.
 *
 * - `hostId`: no two daemons on one engine may share it.
 * - `engine`, `socket`: unix sockets of the engine and of the daemon.
 * - `resolver`: who is asked for names on behalf of sandboxes, if not the host's own nameservers.
 * - `address`, `scheduler`: plain `host:port` of the daemon and of the scheduler, both on loopback.
 */
export function devConfig(options) {
  const { hostId, stateDirectory, engine, cgroupParent, socket, address, scheduler, resolver } = options;
  return `# Written by npm start, which writes it anew each time: copy it elsewhere to change it.

[host]
id = ${quoted(hostId)}

[state]
directory = ${quoted(stateDirectory)}

[engine]
socket = ${quoted(engine)}
cgroup_parent = ${quoted(cgroupParent)}

[listen]
socket = ${quoted(socket)}
socket_mode = "0660"
# Plain TCP without authentication: only with --dev, only on loopback.
dev_address = ${quoted(address)}

[scheduler]
endpoints = [${quoted(`http://${scheduler}`)}]

${resolver === undefined ? "" : `[network]\nresolvers = [${quoted(resolver)}]\n\n`}[images]
allow = ["sandboxd-base:*"]
pull = "never"

[templates.shell]
image = "sandboxd-base:latest"
command = ["sh", "-c", "while :; do date; sleep 1; done"]
`;
}
