// gzip, for messages and answers.

import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Compression } from "@connectrpc/connect/protocol";

const compress = promisify(gzip);
const decompress = promisify(gunzip);

/** What is longer than it may be is cut off while it is decompressed, and refused as RESOURCE_EXHAUSTED. */
export const compressionGzip: Compression = {
  name: "gzip",
  compress: async (bytes) => Uint8Array.from(await compress(bytes)),
  async decompress(bytes, readMaxBytes) {
    if (bytes.length === 0) return new Uint8Array(0);
    try {
      return Uint8Array.from(await decompress(bytes, { maxOutputLength: readMaxBytes }));
    } catch (error) {
      const isTooLarge = (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
      throw isTooLarge
        ? new ConnectError(`message is larger than ${readMaxBytes} bytes`, Code.ResourceExhausted)
        : new ConnectError("message is not gzip", Code.InvalidArgument);
    }
  },
};
