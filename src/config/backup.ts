// The keys that say when workspaces are backed up, where to, and how many backups are kept.

import { choice, duration, integer, list, section, text } from "./field.ts";
import * as rule from "./rule.ts";

export const backupsSection = () =>
  section("Backups of workspaces.", {
    to: choice({
      of: ["none", "directory", "command"],
      default: "none",
      meaning: "Where they go. none: there are none.",
    }),
    every: duration({
      min: "10s",
      max: "30d",
      default: "1d",
      meaning: "Time between two backups of a workspace.",
    }),
    directory: text(rule.absolutePath, {
      meaning:
        "Where archives are written: TENANT/WORKSPACE/TIME.tar.zst. Root's alone; best on another disk.",
    }),
    keep: integer({
      min: 1,
      max: 1000,
      default: 7,
      meaning:
        "Archives kept of each workspace in the directory, also once it was deleted; older ones are removed.",
    }),
    command: list(rule.argument, {
      max: 64,
      meaning:
        "A program of the host that takes the archive on its standard input, as root. It is told BACKUP_TENANT, BACKUP_WORKSPACE and BACKUP_TIME, and keeps or removes what it stores by itself.",
    }),
    timeout: duration({
      min: "1s",
      max: "7d",
      default: "6h",
      meaning: "The longest that one backup may take.",
    }),
  });
