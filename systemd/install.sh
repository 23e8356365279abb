#!/usr/bin/env bash
# Installs v2td as a systemd service, or upgrades it. Run it again at any time: it ends in the same state.
#
#   sudo systemd/install.sh [PREFIX]        PREFIX is /opt/v2td unless given
#   DESTDIR=/tmp/root systemd/install.sh    for packagers and tests: writes below DESTDIR only, adds no user
#
# PYTHON names the interpreter (3.11 or newer) when the usual names do not find it. VENV=keep leaves PREFIX/venv as it
# is: it was built in another way. SYSCTL=yes also sets the kernel's network buffers, for all programs (99-v2td.conf).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(dirname "$here")
prefix=${1:-/opt/v2td}
destdir=${DESTDIR:-}
units=/etc/systemd/system
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

# The user's home and the others; systemd would make them only when the service is started first.
add_folders() {
  install -D -m 0644 "$here/v2td.tmpfiles" "$destdir/etc/tmpfiles.d/v2td.conf"
  if [[ -n $destdir ]]; then
    return
  elif command -v systemd-tmpfiles >/dev/null; then
    systemd-tmpfiles --create /etc/tmpfiles.d/v2td.conf
  else
    install -d -m 0700 -o "$user" -g "$user" /var/lib/v2td /var/cache/v2td
  fi
}

# Puts PREFIX into a file on its way to where it belongs.
place() {
  install -d -m 0755 "$destdir$2"
  sed "s|/opt/v2td|$prefix|g" "$here/$1" >"$stage/$1"
  install -m 0644 "$stage/$1" "$destdir$2/$1"
}

add_sysctl() {
  place 99-v2td.conf /etc/sysctl.d
  if [[ -z $destdir ]]; then
    sysctl -q -p /etc/sysctl.d/99-v2td.conf || echo "this kernel does not take all of /etc/sysctl.d/99-v2td.conf"
  fi
}

# The unit and the instances of the template that run, or try to.
running_units() {
  if [[ -z $destdir && -d /run/systemd/system ]]; then
    systemctl list-units --plain --no-legend --state=active,activating 'v2td.service' 'v2td@*.service' |
      cut -d ' ' -f 1
  fi
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
if [[ ${VENV:-} == keep ]]; then
  [[ -x $destdir$prefix/venv/bin/v2td ]] || fail "VENV=keep, but there is no $destdir$prefix/venv/bin/v2td"
elif [[ $(cat "$destdir$prefix/venv/.built-of" 2>/dev/null) == "$(fingerprint)" ]]; then
  echo "the environment in $destdir$prefix/venv is up to date"
else
  build_venv "$prefix/venv" "$stage"
fi

add_user
add_config
add_folders

mapfile -t running < <(running_units)
if ((${#running[@]})); then
  echo "stopping ${running[*]}, which finishes what is under way"
  systemctl stop "${running[@]}"
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
install -m 0644 "$source"/docs/*.md "$source"/docs/v2td.1 "$destdir$prefix/doc"
install -d -m 0755 "$destdir$prefix/doc/deploy"
install -m 0644 "$source"/docs/deploy/* "$destdir$prefix/doc/deploy"
install -d -m 0755 "$destdir$prefix/doc/prometheus" "$destdir$prefix/doc/grafana"
install -m 0644 "$source"/docs/prometheus/*.yml "$destdir$prefix/doc/prometheus"
install -m 0644 "$source"/docs/grafana/*.json "$destdir$prefix/doc/grafana"
for unit in v2td.service v2td@.service v2td.slice; do
  place "$unit" "$units"
done
rm -rf "$destdir$prefix/systemd"
for optional in gpu.conf cpus.conf 99-v2td.conf; do
  place "$optional" "$prefix/systemd"
done
if [[ ${SYSCTL:-} == yes ]]; then
  add_sysctl
fi

if [[ -z $destdir && -d /run/systemd/system ]]; then
  systemctl daemon-reload
  if ((${#running[@]})); then
    systemctl start "${running[@]}" || fail "installed, but it does not start: journalctl -u '${running[0]}' says why"
  fi
fi

echo "installed v2td in $destdir$prefix, its units in $destdir$units"
if [[ -z $destdir ]] && ((${#running[@]} == 0)); then
  cat <<NEXT
Next:
  1. write kafka, database and engine.model into /etc/v2td/config.toml
  2. sudo -u $user $prefix/venv/bin/v2td model pull base     (if the model is called base)
  3. sudo -u $user $prefix/venv/bin/v2td check
  4. sudo systemctl enable --now v2td          (or v2td@1 v2td@2: several on this machine)
  5. journalctl -u v2td -f
  $prefix/venv/bin/v2td check --host tells what else this machine could do; $prefix/systemd has it, and what a GPU takes.
NEXT
fi
