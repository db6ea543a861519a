// What is found about the kernel: figures and ways of attack that sandboxes cannot reach, but that a host need not leave open.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Finding, ok, warning } from "./finding.ts";

/** `root` is where /proc is looked for; default: "/". */
export function kernelFindings(root = "/"): readonly Finding[] {
  const setting = (name: string) => read(join(root, "proc/sys", name.replaceAll(".", "/")));
  return [
    closed("io_uring", setting("kernel.io_uring_disabled"), {
      isOpen: (value) => value === "0",
      open: "every process may use io_uring, where many of the kernel's holes were",
      hint: "set kernel.io_uring_disabled = 2",
    }),
    closed("bpf", setting("kernel.unprivileged_bpf_disabled"), {
      isOpen: (value) => value === "0",
      open: "every process may load BPF programs",
      hint: "set kernel.unprivileged_bpf_disabled = 2",
    }),
    closed("ptrace", setting("kernel.yama.ptrace_scope"), {
      isOpen: (value) => value === "0",
      open: "every process may trace others of its user",
      hint: "set kernel.yama.ptrace_scope = 1",
    }),
    existsSync(join(root, "proc/pressure/memory"))
      ? ok("stall_information", "the kernel tells how long tasks wait for cpu, memory and disks")
      : warning(
          "stall_information",
          "the kernel tells no pressure stall information; the condition STALLED is never told",
          "boot with psi=1",
        ),
  ];
}

interface Closing {
  readonly isOpen: (value: string) => boolean;
  readonly open: string;
  readonly hint: string;
}

/** A kernel without the setting is as closed as it can be: it lacks what is set, or is older than both. */
function closed(name: string, value: string | undefined, { isOpen, open, hint }: Closing): Finding {
  if (value === undefined) return ok(name, "this kernel has no such setting");
  return isOpen(value)
    ? warning(name, `${open}; sandboxes' own filter forbids it`, hint)
    : ok(name, `set to ${value}`);
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return undefined;
  }
}
