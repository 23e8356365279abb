#!/usr/bin/env bash
# Installs v2td as a systemd service, or upgrades it. Run it again at any time: it ends in the same state.
#
#   sudo systemd/install.sh [PREFIX]        PREFIX is /opt/v2td unless given
#   DESTDIR=/tmp/root systemd/install.sh    for packagers and tests: writes below DESTDIR only, adds no user
#
# PYTHON names the interpreter (3.11 or newer) when the usual names do not find it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(dirname "$here")
prefix=${1:-/opt/v2td}
destdir=${DESTDIR:-}
user=v2td
umask 022

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

# Says what an environment was built of; the same again need not be built again.
fingerprint() {
  {
    "$python" --version
    cd "$source"
    find v2td pyproject.toml .ci/constraints.txt -type f -not -path '*/__pycache__/*' -print0 |
      sort -z | xargs -0 sha256sum
  } | sha256sum | cut -d ' ' -f 1
}

# Builds the environment beside the running one, so that a failure leaves that as it was.
build_venv() {
  local final=$1 stage=$2
  if [[ -z $destdir && $(readlink -f "$python") =~ ^/(root|home)/ ]]; then
    fail "$python lies in a home, which the service may not enter: name another, such as PYTHON=/usr/bin/python3"
  fi
  "$python" -m venv "$stage/venv"
  local pip=("$stage/venv/bin/python" -m pip --disable-pip-version-check --quiet)
  echo "installing the packages of .ci/constraints.txt"
  "${pip[@]}" install --require-hashes -r "$source/.ci/constraints.txt"
  # A copy, so that the build leaves nothing in the checkout.
  mkdir "$stage/source"
  cp -R "$source/v2td" "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$stage/source"
  "${pip[@]}" install --no-deps --no-build-isolation "$stage/source"
  # Scripts name the interpreter that they were installed with: name the one that will be there.
  { grep -rIlF "$stage/venv" "$stage/venv/bin" "$stage/venv/pyvenv.cfg" || true; } |
    xargs -r sed -i "s|$stage/venv|$final|g"
  fingerprint >"$stage/venv/.built-of"
}

add_user() {
  install -D -m 0644 "$here/v2td.sysusers" "$destdir/etc/sysusers.d/v2td.conf"
  if [[ -n $destdir ]] || id -u "$user" >/dev/null 2>&1; then
    return
  fi
  echo "adding the system user $user"
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers /etc/sysusers.d/v2td.conf
  else
    useradd --system --user-group --home-dir /var/lib/v2td --no-create-home --shell /usr/sbin/nologin "$user"
  fi
}

# The config is the service user's alone (0600): v2td refuses passwords in a file that others can read.
add_config() {
  local folder=$destdir/etc/v2td
  install -d -m 0755 "$folder"
  install -d -m 0700 "$folder/credentials"
  if [[ -e $folder/config.toml ]]; then
    echo "kept $folder/config.toml"
    return
  fi
  # Named, so that `v2td model pull` outside the unit puts models where the unit looks for them.
  sed 's|^# models_dir = ""$|models_dir = "/var/lib/v2td/models"|' "$source/config.toml" >"$stage/config.toml"
  install -m 0600 "$stage/config.toml" "$folder/config.toml"
  if [[ -z $destdir ]]; then
    chown "$user:$user" "$folder/config.toml"
  fi
}

# The user's home; systemd would make it only when the service is started first.
add_state() {
  if [[ -z $destdir ]]; then
    install -d -m 0700 -o "$user" -g "$user" /var/lib/v2td
  fi
}

is_active() {
  [[ -z $destdir && -d /run/systemd/system ]] && systemctl is-active --quiet v2td.service
}

[[ $prefix == /* && $prefix != / && $prefix != *[[:space:]\|\&\\]* ]] ||
  fail "PREFIX must be an absolute path without blanks, such as /opt/v2td; it is '$prefix'"
[[ -z $destdir || $destdir == /* ]] || fail "DESTDIR must be an absolute path; it is '$destdir'"
if [[ -z $destdir && $EUID -ne 0 ]]; then
  fail "needs root to add a user and a service: sudo $0 $prefix"
fi

install -d -m 0755 "$destdir$prefix"
rm -rf "$destdir$prefix"/.installing-* # of an installation that was killed
stage=$(mktemp -d "$destdir$prefix/.installing-XXXXXX")
trap 'rm -rf "$stage"' EXIT
chmod 0755 "$stage"
python=$("$source/.ci/find-python" "${PYTHON:-python3}")
if [[ $(cat "$destdir$prefix/venv/.built-of" 2>/dev/null) == "$(fingerprint)" ]]; then
  echo "the environment in $destdir$prefix/venv is up to date"
else
  build_venv "$prefix/venv" "$stage"
fi

add_user
add_config
add_state

restart=no
if is_active; then
  echo "stopping v2td, which finishes what is under way"
  systemctl stop v2td.service
  restart=yes
fi

# All that is replaced is replaced here, while nothing runs.
if [[ -d $stage/venv ]]; then
  if [[ -d $destdir$prefix/venv ]]; then
    mv "$destdir$prefix/venv" "$stage/venv.old"
  fi
  mv "$stage/venv" "$destdir$prefix/venv"
fi
rm -rf "$destdir$prefix/doc"
install -d -m 0755 "$destdir$prefix/doc"
install -m 0644 "$source"/docs/*.md "$destdir$prefix/doc"
install -d -m 0755 "$destdir/etc/systemd/system"
sed "s|/opt/v2td|$prefix|g" "$here/v2td.service" >"$stage/v2td.service"
install -m 0644 "$stage/v2td.service" "$destdir/etc/systemd/system/v2td.service"

if [[ -z $destdir && -d /run/systemd/system ]]; then
  systemctl daemon-reload
  if [[ $restart == yes ]]; then
    systemctl start v2td.service || fail "installed, but it does not start: journalctl -u v2td says why"
  fi
fi

echo "installed v2td in $destdir$prefix, its unit in $destdir/etc/systemd/system"
if [[ -z $destdir && $restart == no ]]; then
  cat <<NEXT
Next:
  1. write kafka, database and engine.model into /etc/v2td/config.toml
  2. sudo -u $user $prefix/venv/bin/v2td model pull base     (if the model is called base)
  3. sudo -u $user $prefix/venv/bin/v2td check
  4. sudo systemctl enable --now v2td
  5. journalctl -u v2td -f
NEXT
fi
