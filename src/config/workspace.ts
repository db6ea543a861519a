// The keys that say where workspaces are, what keeps them within their limits, and how much of the disk they may be promised.

import { choice, ratio, section, size, text } from "./field.ts";
import { tebibyte } from "./resource.ts";
import * as rule from "./rule.ts";

const mebibyte = 1024 * 1024;

/** The bounds of sizes are kept equal to `sandboxd.v1.WorkspaceLimits`; a test compares them. */
export const workspacesSection = () =>
  section("Tenants' directories that outlive their sandboxes.", {
    directory: text(rule.absolutePath, {
      meaning: "Where they are. Root's alone. Left out: workspaces, in the state's directory.",
    }),
    backend: choice({
      of: ["auto", "project-quota", "btrfs", "loop-image", "none"],
      default: "auto",
      meaning:
        "What keeps new ones within their limits. auto: what the directory's file system has, else an image on a loop device. none: there are none.",
    }),
    default_bytes: size({
      min: 16 * mebibyte,
      max: 16 * tebibyte,
      default: 1024 * mebibyte,
      meaning: "Size of one whose request names none.",
    }),
    max_bytes: size({
      min: 16 * mebibyte,
      max: 16 * tebibyte,
      default: tebibyte,
      meaning: "The most that one may have.",
    }),
    reserve_bytes: size({
      min: 0,
      max: 1024 * tebibyte,
      default: 1024 * mebibyte,
      meaning: "What of the file system is never promised to workspaces.",
    }),
    overcommit: ratio({
      min: 1,
      max: 100,
      default: 1,
      meaning:
        "The sum of their sizes may be this many times what the file system has. Above 1, one within its limits can find the disk full.",
    }),
  });
