// Files in and out of a sandbox, against commands of the bare engine's exec that do the same.

import { createTarWriter } from "../src/workspace/archive/tar-writer.ts";
import { assertRead, type Inside, inTurn, type Measured, megabytesPerSecond } from "./in-turn.ts";
import { type Result, resultOf } from "./result.ts";
import { upload } from "./upload.ts";

const mebibyte = 1_024 ** 2;
const fileBytes = 100e6;
const smallFiles = 1_000;

/** Reading, writing, unpacking and looking. */
export async function measureFiles(inside: Inside, runs: number): Promise<readonly Result[]> {
  const { sandboxId, files, session, bare } = inside;
  const path = "/tmp/large";
  const content = Buffer.alloc(fileBytes, "sandboxd\n");
  const write = () => upload(session, { sandboxId, path }, content);
  const written = await inTurn(10, write, () => bare.feed(["sh", "-c", `cat > ${path}`], content));
  const read = await inTurn(
    10,
    async () => {
      let bytes = 0;
      for await (const { part } of files.readFile({ sandboxId, path })) {
        if (part.case === "data") bytes += part.value.length;
      }
      assertRead(bytes, fileBytes);
    },
    async () => assertRead((await bare.run(["cat", path])).outputBytes, fileBytes),
  );
  const rate = (name: string, { values, baseline }: Measured) =>
    resultOf({
      name,
      unit: "MB/s",
      values: values.map((ms) => megabytesPerSecond(fileBytes, ms)),
      baseline: baseline.map((ms) => megabytesPerSecond(fileBytes, ms)),
      goal: { of: "ratio", atLeast: 0.8 },
    });
  return [
    rate("files-read", read),
    rate("files-write", written),
    await measureArchive(inside),
    ...(await measureLooks(inside, runs)),
  ];
}

/** A thousand files of 1 KiB in one archive. */
async function measureArchive({ sandboxId, files, bare }: Inside): Promise<Result> {
  const archive = smallFilesArchive();
  const upload = async () => {
    const chunks = async function* () {
      yield { part: { case: "target" as const, value: { sandboxId, path: "/tmp/up" } } };
      for (let at = 0; at < archive.length; at += mebibyte) {
        yield { part: { case: "data" as const, value: archive.subarray(at, at + mebibyte) } };
      }
    };
    const { entries } = await files.uploadArchive(chunks());
    assertRead(Number(entries), smallFiles);
  };
  const { values, baseline } = await inTurn(10, upload, () => bare.feed(["tar", "x", "-C", "/tmp"], archive));
  return resultOf({
    name: "files-archive",
    unit: "ms",
    values,
    baseline,
    goal: { of: "ratio", atMost: 1.5 },
  });
}

/** Of the directory that the archive was unpacked to. */
async function measureLooks({ sandboxId, files, bare }: Inside, runs: number): Promise<readonly Result[]> {
  const directory = "/tmp/up/d";
  const stat = await inTurn(
    runs,
    () => files.stat({ sandboxId, path: `${directory}/file-1` }),
    () => bare.run(["stat", `${directory}/file-1`]),
  );
  const list = await inTurn(
    runs,
    async () => {
      const { files: found } = await files.listDirectory({ sandboxId, path: directory });
      assertRead(found.length, smallFiles);
    },
    () => bare.run(["ls", "-la", directory]),
  );
  const goal = { of: "p50", atMost: 20 } as const;
  return [
    resultOf({ name: "files-stat", unit: "ms", ...stat, goal }),
    resultOf({ name: "files-list", unit: "ms", ...list, goal }),
  ];
}

function smallFilesArchive(): Buffer {
  const size = 1_024;
  const writer = createTarWriter();
  const pieces: Buffer[] = [];
  for (let index = 0; index < smallFiles; index += 1) {
    const path = `d/file-${index}`;
    pieces.push(...writer.header({ type: "0", path, linkPath: "", mode: 0o644, size, mtime: 0 }));
    pieces.push(...writer.content(size, (into) => into.fill(97).length));
  }
  return Buffer.concat([...pieces, ...writer.end()]);
}
