// Every key of the configuration: its kind, bounds, default and meaning. Parsing, the types, the reference in
// docs/configuration.md and the check of the example file all follow from this table.

import { backupsSection } from "./backup.ts";
import { choice, duration, integer, list, map, named, ratio, section, size, text } from "./field.ts";
import { templateHealthCheck, templateLifetime, templateRestart } from "./life.ts";
import { logsSection } from "./log-shipping.ts";
import { sharedTable, templateShared, templateTmpfs, templateVolumes, volumesTable } from "./mount.ts";
import {
  networkSection,
  proxiesTable,
  templateEgress,
  templateNetworkLimits,
  templateNetworkMode,
} from "./network.ts";
import { housekeepingSection, pressureSection } from "./pressure.ts";
import { previewSection } from "./preview.ts";
import { processesSection } from "./process.ts";
import { resourceBounds, resourceFields, tebibyte, templateResources } from "./resource.ts";
import * as rule from "./rule.ts";
import { tenantsSection } from "./tenant.ts";
import { workspacesSection } from "./workspace.ts";

const timeout = (value: string, meaning: string) =>
  duration({ min: "100ms", max: "1h", default: value, meaning });

export const schema = section("", {
  host: section("This machine, as the scheduler sees it.", {
    id: text(rule.hostId, {
      meaning:
        "Name of this host, unique to the scheduler. Left out: made once and kept in the state directory.",
    }),
    labels: map(rule.labelKey, rule.labelValue, {
      max: 64,
      default: {},
      meaning: "Facts for the scheduler to place sandboxes by.",
    }),
  }),

  state: section("What must outlive the daemon.", {
    directory: text(rule.absolutePath, {
      default: "/var/lib/sandboxd",
      meaning: "Where the database is kept. One daemon per directory.",
    }),
    event_retention: integer({
      min: 1000,
      max: 10_000_000,
      default: 100_000,
      meaning: "Events kept for readers that resume; the oldest go first.",
    }),
    event_retention_age: duration({
      min: "1m",
      max: "365d",
      default: "7d",
      meaning: "Age after which an event is no longer kept, however few there are.",
    }),
  }),

  engine: section("The Docker Engine.", {
    socket: text(rule.socketPath, { default: "/var/run/docker.sock", meaning: "Its unix socket." }),
    cgroup_parent: text(rule.cgroupName, {
      default: "/sandboxd",
      meaning:
        "Parent cgroup of all sandboxes, held to what is allocatable: of no other daemon. With the engine's systemd driver it is the slice of that name.",
    }),
    relist_period: duration({
      min: "1s",
      max: "10m",
      default: "30s",
      meaning: "Time between two full comparisons with the engine. Its events are only hints in between.",
    }),
    orphan_grace: duration({
      min: "1s",
      max: "1d",
      default: "60s",
      meaning: "Time that a container of this host without a record is left alone before it is removed.",
    }),
    timeouts: section("Deadlines of the engine's verbs.", {
      list: timeout("10s", "List containers or images."),
      inspect: timeout("5s", "Inspect one."),
      create: timeout("30s", "Create a container."),
      start: timeout("60s", "Start it."),
      stop: timeout("30s", "Stop it; counted after the sandbox's own stop_grace."),
      remove: timeout("60s", "Remove it."),
      update: timeout("10s", "Change its limits."),
      pause: timeout("10s", "Freeze it, or let it go on."),
      exec: timeout("10s", "Begin a command in it; how long that may run is the command's own."),
      pull: duration({ min: "1s", max: "1d", default: "10m", meaning: "Pull an image, as a whole." }),
    }),
  }),

  listen: section("Where the API is served.", {
    socket: text(rule.socketPath, {
      default: "/run/sandboxd/sandboxd.sock",
      meaning: "Unix socket. Whoever may open it is an operator.",
    }),
    socket_mode: text(rule.socketMode, { default: "0660", meaning: "File mode of the socket." }),
    socket_group: text(rule.groupName, { meaning: "Group of the socket. Left out: the daemon's own." }),
    dev_address: text(rule.loopbackAddress, {
      meaning: "Plain TCP without any authentication, for development. Only with --dev.",
    }),
    tls: section("TCP with mutual TLS. All four keys, or none.", {
      address: text(rule.tcpAddress, { meaning: "Where to listen. Not where sandboxes can reach it." }),
      certificate: text(rule.absolutePath, { meaning: "The daemon's certificate and its chain. PEM file." }),
      key: text(rule.absolutePath, { meaning: "Its private key. PEM file that only its owner can read." }),
      client_ca: text(rule.absolutePath, {
        meaning: "Authorities whose certificates callers must show. PEM file.",
      }),
    }),
    limits: section("Bounds of what callers may hold.", {
      message_bytes: size({
        min: 64 * 1024,
        max: 64 * 1024 * 1024,
        default: 4 * 1024 * 1024,
        meaning: "Largest request message.",
      }),
      streams_per_session: integer({
        min: 1,
        max: 4096,
        default: 128,
        meaning: "Calls open at once on one HTTP/2 session.",
      }),
      sessions: integer({ min: 1, max: 65_536, default: 1024, meaning: "Connections of each listener." }),
      streams_per_caller: integer({
        min: 1,
        max: 65_536,
        default: 1000,
        meaning: "Streaming calls that one caller may have open, over all its sessions.",
      }),
    }),
  }),

  scheduler: section("The central scheduler.", {
    endpoints: list(rule.endpoint, {
      max: 16,
      default: [],
      meaning:
        "Tried in turn. Empty: none. http:// only to this machine, or with --dev; https:// needs [scheduler.tls].",
    }),
    heartbeat_period: duration({
      min: "500ms",
      max: "5m",
      default: "5s",
      meaning: "Time between two heartbeats, until the scheduler says otherwise.",
    }),
    stats_period: duration({
      min: "1s",
      max: "10m",
      default: "10s",
      meaning: "Time between two batches of statistics, until the scheduler says otherwise.",
    }),
    tls: section("How the daemon and the scheduler know each other. All three keys, or none.", {
      ca: text(rule.absolutePath, {
        meaning: "Authorities that the scheduler's certificate must be from. PEM file.",
      }),
      certificate: text(rule.absolutePath, {
        meaning: "The daemon's client certificate and its chain. PEM file.",
      }),
      key: text(rule.absolutePath, { meaning: "Its private key. PEM file that only its owner can read." }),
    }),
  }),

  capacity: section("How much of the machine may be promised.", {
    reserve_cpu_millis: integer({
      min: 0,
      max: resourceBounds.cpu_millis.max,
      meaning: "CPU kept from sandboxes for the system. Millicores. Left out: by the size of the machine.",
    }),
    reserve_memory_bytes: size({
      min: 0,
      max: resourceBounds.memory_bytes.max,
      meaning: "Memory kept from sandboxes for the system. Left out: by the size of the machine.",
    }),
    reserve_pids: integer({
      min: 0,
      max: resourceBounds.pids.max,
      meaning: "Processes kept from sandboxes for the system. Left out: by the size of the machine.",
    }),
    cpu_overcommit: ratio({
      min: 1,
      max: 100,
      default: 4,
      meaning: "The sum of CPU limits may be this many times what is allocatable; requests never exceed it.",
    }),
    memory_overcommit: ratio({
      min: 1,
      max: 10,
      default: 1,
      meaning:
        "The same of memory. Above 1, sandboxes within their limits can be killed when the host runs out.",
    }),
    max_sandboxes: integer({
      min: 1,
      max: 10_000,
      default: 500,
      meaning: "Most sandboxes that run or are to run.",
    }),
    concurrent_starts: integer({
      min: 1,
      max: 64,
      default: 4,
      meaning:
        "Containers that the engine creates or starts at once. More than 8 is slower on small machines.",
    }),
  }),

  tenants: tenantsSection(),

  network: networkSection(),

  proxies: proxiesTable(),

  preview: previewSection(),

  workspaces: workspacesSection(),

  processes: processesSection(),

  backups: backupsSection(),

  images: section("Which images may run.", {
    allow: list(rule.imagePattern, {
      max: 1000,
      default: [],
      meaning: "Besides the templates' images. Empty: only those.",
    }),
    pull: choice({
      of: ["missing", "never"],
      default: "missing",
      meaning: "Whether an allowed image that the host lacks is pulled.",
    }),
  }),

  defaults: section(
    "Limits of a sandbox where neither its request nor its template has any.",
    resourceFields("default"),
  ),

  limits: section("What requests and templates must stay within.", {
    min: section("The least that may be asked for.", resourceFields("min")),
    max: section("The most that may be asked for.", resourceFields("max")),
  }),

  shared: sharedTable(),

  volumes: volumesTable(),

  templates: named({
    meaning: "Specs that requests start from. NAME: lower-case letters, digits and hyphens, at most 63.",
    namePattern: rule.templateName,
    item: section("A template.", {
      image: text(rule.imageReference, { meaning: "Its image. Left out: the request must name one." }),
      command: list(rule.argument, {
        max: 256,
        meaning: "The executable and its leading arguments. Left out: the image's.",
      }),
      args: list(rule.argument, {
        max: 1024,
        meaning: "Arguments after the command. Left out: the image's, unless command is set.",
      }),
      env: map(rule.envName, rule.envValue, {
        max: 256,
        default: {},
        secret: true,
        meaning: "Environment. Values are never shown, but the sandbox's user can read them.",
      }),
      working_dir: text(rule.workingDirectory, { meaning: "Where the command starts. Left out: /tmp." }),
      labels: map(rule.labelKey, rule.labelValue, {
        max: 64,
        default: {},
        meaning: "Labels of its sandboxes.",
      }),
      stop_grace: duration({
        min: "0s",
        max: "10m",
        default: "10s",
        meaning: "Time between stop_signal and SIGKILL.",
      }),
      stop_signal: choice({
        of: ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM"],
        meaning: "What the main command is sent first when it is to stop. Left out: SIGTERM.",
      }),
      priority: integer({
        min: -1000,
        max: 1000,
        meaning: "When the host is under pressure, lower ones go before higher ones. Left out: 0.",
      }),
      lifetime: templateLifetime(),
      restart: templateRestart(),
      health_check: templateHealthCheck(),
      network_mode: templateNetworkMode(),
      egress: templateEgress(),
      network_limits: templateNetworkLimits(),
      resources: templateResources(),
      root_bytes: size({
        min: 1024 * 1024,
        max: 16 * tebibyte,
        meaning:
          "Size of a writable root layer, where the engine can bound it. Left out: the root is read-only.",
      }),
      tmpfs: templateTmpfs(),
      shared: templateShared(),
      volumes: templateVolumes(),
    }),
  }),

  pressure: pressureSection(),

  housekeeping: housekeepingSection(),

  sampling: section("Measuring sandboxes and the host.", {
    period: duration({ min: "100ms", max: "1m", default: "1s", meaning: "Time between two samples." }),
    history: duration({
      min: "1s",
      max: "1h",
      default: "5m",
      meaning: "How far back samples are kept, in memory; at most 3600 of them.",
    }),
  }),

  log: section("Logs: JSON lines on standard output.", {
    level: choice({
      of: ["trace", "debug", "info", "warn", "error", "fatal"],
      default: "info",
      meaning: "The least severe level that is written.",
    }),
  }),

  logs: logsSection(),

  metrics: section("Metrics for Prometheus.", {
    address: text(rule.loopbackOrUnixAddress, {
      meaning: "A listener for GET /metrics over HTTP/1.1. Left out: none.",
    }),
  }),
});
