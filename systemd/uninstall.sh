#!/usr/bin/env bash
# Removes what install.sh installed. The config, the models and the user stay, unless --purge is given.
#
#   sudo systemd/uninstall.sh [--purge] [PREFIX]      PREFIX is /opt/v2td unless given; DESTDIR as in install.sh
set -euo pipefail

purge=no
if [[ ${1:-} == --purge ]]; then
  purge=yes
  shift
fi
prefix=${1:-/opt/v2td}
destdir=${DESTDIR:-}
units=/etc/systemd/system

fail() {
  echo "uninstall.sh: $*" >&2
  exit 1
}

[[ $prefix == /* && $prefix != / && $prefix != *[[:space:]\|\&\\]* ]] ||
  fail "PREFIX must be an absolute path without blanks, such as /opt/v2td; it is '$prefix'"
[[ -z $destdir || $destdir == /* ]] || fail "DESTDIR must be an absolute path; it is '$destdir'"
if [[ -z $destdir && $EUID -ne 0 ]]; then
  fail "needs root to remove a service: sudo $0 $*"
fi

live=no
if [[ -z $destdir && -d /run/systemd/system ]]; then
  live=yes
fi
if [[ $live == yes && -e $units/v2td.service ]]; then
  echo "stopping v2td, which finishes what is under way"
  systemctl stop 'v2td.service' 'v2td@*.service' v2td.slice
  systemctl --quiet disable v2td.service v2td@.service
fi

rm -f "$destdir$units"/v2td{.service,@.service,.slice} "$destdir"/etc/{sysusers,tmpfiles}.d/v2td.conf
rm -f "$destdir/etc/sysctl.d/99-v2td.conf" # what it set stays until the machine starts anew
rm -rf "$destdir$prefix"/{venv,doc,systemd} "$destdir/run/v2td"
# Only if it is empty: what somebody else put there stays.
rmdir "$destdir$prefix" 2>/dev/null || true
if [[ $live == yes ]]; then
  systemctl daemon-reload
fi

if [[ $purge == yes ]]; then
  rm -rf "$destdir"/etc/v2td "$destdir"/var/{lib,cache}/v2td "$destdir$units"/v2td{.service,@*.service,.slice}.d
  if [[ -z $destdir ]] && id -u v2td >/dev/null 2>&1; then
    userdel v2td
  fi
  echo "removed v2td, its config, its models and its user; rows and topics are as they were"
else
  echo "removed v2td; kept: /etc/v2td, /var/lib/v2td, /var/cache/v2td and the user v2td (--purge removes them too)"
fi
