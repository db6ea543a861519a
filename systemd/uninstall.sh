#!/bin/sh
# Removes sandboxd. Its configuration and state stay, and so do its sandboxes, which go on running: an installation after it finds
# them again. To be run as root, any number of times.
#
#   uninstall.sh [--purge]     --purge: configuration, state and workspaces too, and what holds networks in the kernel; refused while
#                              there are containers of this host, as nothing could tell any more that they are ours
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
  for kind in network volume; do
    docker "$kind" ls --quiet --filter label=sandboxd.host | xargs --no-run-if-empty docker "$kind" rm >/dev/null
  done
  # the rules of networks, and those of routing that hold sandboxes back without them
  nft list tables 2>/dev/null | awk '$3 ~ /^sandboxd_/' | while read -r _ family table; do
    nft delete table "$family" "$table"
  done
  ip -4 rule list | sed -n 's/^0:\t\(.*\) proto 115 *$/\1/p' | while read -r rule; do
    # shellcheck disable=SC2086 # words of its own
    ip -4 rule del pref 0 $rule protocol 115
  done
  # workspaces, the last that was mounted first: a directory that is mounted cannot be removed
  findmnt --noheadings --list --output TARGET | grep '^/var/lib/sandboxd/' | tac | while read -r place; do
    umount "$place"
  done
  rm -rf /etc/sandboxd /var/lib/sandboxd
  ! getent group sandboxd >/dev/null || groupdel sandboxd
  echo "sandboxd is removed, with its configuration and state"
else
  echo "sandboxd is removed; kept: /etc/sandboxd, /var/lib/sandboxd, and its sandboxes"
fi
