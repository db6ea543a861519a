#!/bin/sh
# Installs the release that this script is part of, or upgrades to it; running sandboxes go on. To be run as root, any
# number of times. Nothing is changed when the configuration has errors in the eyes of the new release, and a release that
# does not come up is exchanged for the one before.
#
#   install.sh [--no-start]     --no-start: the service is enabled, and left as it is
set -eu

release=$(cd "$(dirname "$0")/.." && pwd)
home=/usr/lib/sandboxd
config=/etc/sandboxd/sandboxd.toml
service=sandboxd.service

fail() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}

start=yes
case "${1-}" in
"") ;;
--no-start) start=no ;;
*) fail "unknown argument $1; usage: install.sh [--no-start]" ;;
esac
[ "$(id -u)" = 0 ] || fail "run it as root"
[ -d /run/systemd/system ] || fail "systemd does not run here"
[ -f "$release/RELEASE" ] || fail "$release is no release: make one with 'npm run release', and unpack it here"
id=$(cat "$release/RELEASE")
run_new() { "$1/bin/sandboxd" config check --config "$2" >/dev/null; }

# What could go wrong goes wrong before anything is changed.
"$release/node_modules/node/bin/node" --version >/dev/null ||
  fail "its Node does not run here: see above (on Debian: apt-get install libatomic1 libstdc++6)"
if [ -f "$config" ]; then checked=$config; else checked=$release/systemd/sandboxd.toml; fi
run_new "$release" "$checked" || fail "$checked has errors: see above. Nothing was changed"

# A copy that was cut short never has the name of a whole one.
mkdir -p "$home/releases"
if [ ! -d "$home/releases/$id" ]; then
  rm -rf "$home/releases/.new"
  mkdir "$home/releases/.new"
  cp -R "$release/RELEASE" "$release/package.json" "$release/bin" "$release/dist" "$release/node_modules" "$release/systemd" \
    "$home/releases/.new"
  chown -R root:root "$home/releases/.new"
  chmod -R go-w "$home/releases/.new"
  mv -T "$home/releases/.new" "$home/releases/$id"
fi

install -d -m 0755 /etc/sandboxd
[ -f "$config" ] || install -m 0640 "$release/systemd/sandboxd.toml" "$config"
install -D -m 0644 "$release/systemd/sandboxd.sysusers" /usr/lib/sysusers.d/sandboxd.conf
install -D -m 0644 "$release/systemd/sandboxd.tmpfiles" /usr/lib/tmpfiles.d/sandboxd.conf
install -D -m 0644 "$release/systemd/sandboxd.service" "/usr/lib/systemd/system/$service"
ln -sfn /usr/lib/sandboxd/current/bin/sandboxd /usr/bin/sandboxd
ln -sfn /usr/lib/sandboxd/current/bin/sandboxctl /usr/bin/sandboxctl
systemd-sysusers /usr/lib/sysusers.d/sandboxd.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/sandboxd.conf

# In one step, so that a start at any moment finds the one release or the other.
switch_to() {
  ln -sfn "releases/$1" "$home/current.new"
  mv -T "$home/current.new" "$home/current"
}
previous=
[ ! -L "$home/current" ] || previous=$(basename "$(readlink "$home/current")")
switch_to "$id"
systemctl daemon-reload
systemctl enable --quiet "$service"

if [ "$start" = yes ]; then
  systemctl reset-failed "$service" 2>/dev/null || true
  # Returns once the daemon has adopted the sandboxes and serves.
  if ! systemctl restart "$service"; then
    journalctl --unit="$service" --lines=20 --no-pager --output=cat >&2 || true
    if [ -n "$previous" ] && [ "$previous" != "$id" ] && [ -d "$home/releases/$previous" ]; then
      install -m 0644 "$home/releases/$previous/systemd/sandboxd.service" "/usr/lib/systemd/system/$service"
      switch_to "$previous"
      systemctl daemon-reload
      systemctl reset-failed "$service" 2>/dev/null || true
      systemctl restart "$service" || true
      fail "sandboxd $id does not come up: see above. Back at $previous"
    fi
    fail "sandboxd $id does not come up: see above"
  fi
fi

# The one before stays, to go back to.
for old in "$home"/releases/*; do
  case "$(basename "$old")" in
  "$id" | "$previous") ;;
  *) rm -rf "$old" ;;
  esac
done
echo "sandboxd $id is installed; its configuration is $config"
