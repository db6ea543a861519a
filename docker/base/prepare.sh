#!/bin/sh
# Lays out what a sandbox expects of its image, below the folder given. A sandbox runs as a user id that no image can
# know, so what it writes to is open to everyone, as /tmp is; no file names that user.
set -eu
target=$1
mkdir -p "$target/etc" "$target/tmp" "$target/home/sandbox" "$target/workspace" "$target/run"
chmod 1777 "$target/tmp" "$target/home/sandbox" "$target/workspace"
echo 'root:x:0:0:root:/:/bin/false' >"$target/etc/passwd"
echo 'root:x:0:' >"$target/etc/group"
