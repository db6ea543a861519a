// Exit codes for a command that could not be started, as shells and the Docker CLI have them.

const notFound = 127;
const notExecutable = 126;

/** From what the daemon says of a COMMAND_UNUSABLE. */
export function unusableCode(message: string, metadata: Readonly<Record<string, string>>): 126 | 127 {
  const said = [message, ...Object.values(metadata)].join(" ");
  return /ENOENT|not found|no such/i.test(said) ? notFound : notExecutable;
}
