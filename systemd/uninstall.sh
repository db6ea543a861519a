#!/bin/sh
# Removes sandboxd. Its configuration and state stay, and so do its sandboxes, which go on running: an installation after it finds
# them again. To be run as root, any number of times.
#
#   uninstall.sh [--purge]     --purge: configuration and state too; refused while there are containers of this host, as
#                              nothing could tell any more that they are ours
set -eu

fail() {
  printf 'uninstall.sh: %s\n' "$1" >&2
  exit 1
}

purge=no
case "${1-}" in
"") ;;
--purge) purge=yes ;;
*) fail "unknown argument $1; usage: uninstall.sh [--purge]" ;;
esac
[ "$(id -u)" = 0 ] || fail "run it as root"

if [ "$purge" = yes ]; then
  left=$(docker ps --all --quiet --filter label=sandboxd.host) || fail "the engine does not tell which containers there are"
  [ -z "$left" ] || fail "there are sandboxes: delete them first, or remove their containers:
  docker ps --all --quiet --filter label=sandboxd.host | xargs docker rm --force"
fi

if [ -f /usr/lib/systemd/system/sandboxd.service ]; then
  systemctl disable --quiet --now sandboxd.service
  rm /usr/lib/systemd/system/sandboxd.service
  systemctl daemon-reload
  systemctl reset-failed sandboxd.service 2>/dev/null || true
fi
rm -f /usr/lib/sysusers.d/sandboxd.conf /usr/lib/tmpfiles.d/sandboxd.conf /usr/bin/sandboxd /usr/bin/sandboxctl
rm -rf /usr/lib/sandboxd /run/sandboxd
if [ "$purge" = yes ]; then
  rm -rf /etc/sandboxd /var/lib/sandboxd
  ! getent group sandboxd >/dev/null || groupdel sandboxd
  echo "sandboxd is removed, with its configuration and state"
else
  echo "sandboxd is removed; kept: /etc/sandboxd, /var/lib/sandboxd, and its sandboxes"
fi
