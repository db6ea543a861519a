// The whole host that tests run on, in an emulator: booted and equipped by the first test file, set back to that by each
// other one. The daemon runs in it as a service; tests call it from outside, over its own socket.

import { rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { stringify, type TomlTable } from "smol-toml";
import { expect } from "vitest";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { type Guest, openGuest } from "../../tools/lib/guest.mjs";
import { ensureBaseImage } from "../../tools/lib/image.mjs";
import { packRelease } from "../../tools/lib/release.mjs";
import { eventually, type TestHost, testHost } from "./sandboxes.ts";

const { SANDBOXD_TEST_GUEST_IMAGE: image, SANDBOXD_TEST_GUEST: directory } = process.env;
const beginUntilMs = Number(process.env["SANDBOXD_TEST_GUEST_UNTIL"] ?? Number.POSITIVE_INFINITY);

/** Whether the time is over in which a test may begin. */
export const isTooLate = () => Date.now() > beginUntilMs;

/** Whether tests on a whole host can't run here, or not any more; the runner says why. For `describe.skipIf`. */
export const isGuestMissing = image === undefined || directory === undefined || isTooLate();

/** How much longer than elsewhere a test waits for what the emulated machine does. */
export const guestPatienceMs = 90_000;

const equipped = "equipped";

/** Where the release lies in the guest that it was installed from. */
export const releaseDirectory = "/root/release";

/** The daemon's configuration in the guest. */
export const configFile = "/etc/sandboxd/sandboxd.toml";

const hostId = "guest";

/** A daemon that is a service of the guest. */
export interface GuestDaemon {
  readonly hostId: string;
  /** A client of one of its services. Connects again after a restart, of the daemon or of the guest. */
  client<Service extends DescService>(service: Service): Client<Service>;
  pid(): Promise<number>;
  /** Resolves when it serves. */
  start(): Promise<void>;
  /** Ends it with SIGKILL. The service manager starts it again. */
  kill(): Promise<void>;
  logs(): Promise<string>;
}

export interface GuestHost extends TestHost<GuestDaemon> {
  readonly guest: Guest;
  /** Lets go of the guest, which the next file takes over. Call it in every case. */
  close(): Promise<void>;
}

const configuration: TomlTable = {
  host: { id: hostId },
  engine: { relist_period: "2s", orphan_grace: "2s" },
  images: { allow: ["sandboxd-base:*"], pull: "never" },
};

/** Writes the daemon's configuration, with these tables laid over the usual ones. */
export async function configure(guest: Guest, tables: TomlTable = {}): Promise<void> {
  const text = stringify({ ...configuration, ...tables });
  await guest.run(`install -D -m 0640 /dev/stdin ${configFile}`, { input: text });
}

/** Boots the guest, or sets it back to what it was when it was equipped, and starts a daemon in it, with these tables of configuration. */
export async function startGuestHost(tables?: TomlTable): Promise<GuestHost> {
  const { guest, engine } = await equippedGuest();
  if (tables !== undefined) await configure(guest, tables);
  const socket = await guest.forward("/run/sandboxd/sandboxd.sock");
  const sessions = new Http2SessionManager("http://sandboxd", undefined, {
    createConnection: () => connect(socket),
  });
  const transport = createGrpcTransport({ baseUrl: "http://sandboxd", sessionManager: sessions });
  const daemon = guestDaemon(guest, (service) => createClient(service, transport));
  await daemon.start();
  return {
    ...testHost(daemon, engine, { patienceMs: guestPatienceMs }),
    guest,
    async close() {
      sessions.abort();
      await guest.close();
    },
  };
}

function guestDaemon(guest: Guest, client: GuestDaemon["client"]): GuestDaemon {
  const health = client(Health);
  const status = async () => (await health.check({}, { timeoutMs: 20_000 })).status;
  const mainPid = async () => Number(await guest.run("systemctl show --property=MainPID --value sandboxd"));
  return {
    hostId,
    client,
    pid: mainPid,
    async start() {
      // returns when the daemon says that it serves, and fails when it ends instead
      await guest.run("systemctl start sandboxd");
      expect(await status()).toBe(HealthCheckResponse_ServingStatus.SERVING);
    },
    async kill() {
      const before = await mainPid();
      await guest.run("systemctl kill --signal=KILL sandboxd");
      await eventually("its end", mainPid, (pid) => pid !== before, guestPatienceMs);
    },
    logs: () => guest.run("journalctl --unit=sandboxd --output=cat --no-pager"),
  };
}

/** The guest with the daemon, its configuration and the base image, and the path of its engine's socket. */
async function equippedGuest(): Promise<{ readonly guest: Guest; readonly engine: string }> {
  if (image === undefined || directory === undefined)
    throw new Error("no whole host: run by `npm test -- host`");
  const guest = openGuest({ image, directory });
  if (guest.isUp()) {
    await guest.rewind(equipped);
    return { guest, engine: await guest.forward("/run/docker.sock") };
  }
  await guest.create();
  const engine = await guest.forward("/run/docker.sock");
  await ensureBaseImage(engine, { log: () => {}, registry: false });
  const archive = join(tmpdir(), "release.tar");
  await packRelease(archive);
  await guest.upload(archive, releaseDirectory);
  rmSync(archive);
  await configure(guest);
  await guest.run(`${releaseDirectory}/systemd/install.sh --no-start`);
  await guest.save(equipped);
  return { guest, engine };
}
