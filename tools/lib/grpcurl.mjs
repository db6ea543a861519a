// grpcurl, the client that operators use: the one on the PATH, or one built where Go is.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { root, run } from "./process.mjs";

const version = "v1.9.3";
const longestBuildMs = 300_000;
const directory = path.join(root, ".dev/bin");

async function answers(program, ...args) {
  return (await run(program, args, { quiet: true })).status === 0;
}

/** Puts grpcurl on the PATH of this process and its children if it can be had. Returns why not, if not. */
export async function ensureGrpcurl({ log }) {
  process.env.PATH = `${process.env.PATH}${path.delimiter}${directory}`;
  if (await answers("grpcurl", "--version")) return undefined;
  if (!(await answers("go", "version")))
    return "grpcurl is not installed, and Go, to build it, is not either";
  log(`building grpcurl ${version}`);
  mkdirSync(directory, { recursive: true });
  const work = mkdtempSync(path.join(tmpdir(), "sandboxd-grpcurl-"));
  try {
    // whatever Go fetches and compiles goes with the folder
    const environment = {
      GOBIN: directory,
      GOPATH: work,
      GOCACHE: path.join(work, "cache"),
      GOFLAGS: "-modcacherw",
    };
    const { status, output } = await run(
      "go",
      ["install", `github.com/fullstorydev/grpcurl/cmd/grpcurl@${version}`],
      { quiet: true, timeoutMs: longestBuildMs, env: { ...process.env, ...environment } },
    );
    return status === 0 && existsSync(path.join(directory, "grpcurl"))
      ? undefined
      : `grpcurl cannot be built: ${output.trim().split("\n").at(-1)}`;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
