#!/bin/sh
# Install edgecap as services on Raspberry Pi OS or Debian, bookworm or trixie. docs/INSTALL.md has the whole story.
#
#   sudo ./systemd/install.sh [--role rig|site|both] [--upgrade] [--no-start] [--offline WHEELS_DIR]
#   sudo ./systemd/install.sh --uninstall [--purge]
#   ./systemd/install.sh --collect DIR [--role …]     a folder to carry to a computer without a network
#
# A rig gets the capture daemon, a site ingest and the fleet page. A second run changes nothing; an upgrade keeps
# recordings, configuration and secrets, and a failed one leaves the old version at work.
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
SOURCE=$(dirname "$HERE")
PREFIX=/opt/edgecap
ETC=/etc/edgecap
UNITS=/etc/systemd/system
LOG=/var/log/edgecap-install.log
UNIT_NAMES="edgecap.service edgecap-ingest.service edgecap-fleet.service edgecap-fleet-check.service edgecap-fleet-check.timer"

say() { echo "edgecap: $*"; }
die() {
    echo "edgecap: $*" >&2
    exit 1
}
usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
}

role='' action=install offline='' collect='' upgrade=no start=yes purge=no
while [ $# -gt 0 ]; do
    case $1 in --role | --offline | --collect) [ -n "${2-}" ] || die "$1 wants a value; see $0 --help" ;; esac
    case $1 in
    --role) role=$2 && shift ;;
    --offline) offline=$2 && shift ;;
    --collect) action=collect collect=$2 && shift ;;
    --upgrade) upgrade=yes ;;
    --no-start) start=no ;;
    --uninstall | uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    -h | --help) usage ;;
    *) die "unknown option $1; see $0 --help" ;;
    esac
    shift
done
[ "$action" = uninstall ] || [ "$purge" = no ] || die "--purge goes with --uninstall"
[ -n "$role" ] || [ ! -e "$PREFIX/role" ] || [ "$action" = collect ] || role=$(cat "$PREFIX/role")
case ${role:=rig} in
rig) locks=requirements-rig.lock services=edgecap.service ;;
site) locks=requirements-site.lock services="edgecap-ingest.service edgecap-fleet.service edgecap-fleet-check.timer" ;;
both)
    locks="requirements-rig.lock requirements-site.lock"
    services="edgecap.service edgecap-ingest.service edgecap-fleet.service edgecap-fleet-check.timer"
    ;;
*) die "role $role is none of rig, site, both" ;;
esac

booted() { [ -d /run/systemd/system ]; }

check_python() {
    command -v python3 >/dev/null || die "python3 is missing; install it: apt-get install python3 python3-venv"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$(python3 --version) is too old, 3.11 is needed; use Raspberry Pi OS or Debian bookworm or later"
    python3 -c 'import venv, ensurepip' 2>/dev/null && return
    fix="install it: apt-get install python3-venv"
    if [ "$action" = collect ] || [ -n "$offline" ]; then die "python3-venv is missing; $fix"; fi
    command -v apt-get >/dev/null || die "python3-venv is missing, and there is no apt-get to install it with"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-venv; } \
        >>"$LOG" 2>&1 || die "python3-venv is missing and apt-get cannot fetch it (see $LOG); $fix"
}

# pip, by the interpreter of the venv $1; what it says goes into the log, its end into one line.
pip_in() {
    venv=$1 && shift
    if "$venv/bin/python" -m pip --disable-pip-version-check --retries 2 --timeout 20 "$@" >>"$LOG" 2>&1; then return; fi
    reason=$(grep -E '^(ERROR|error):' "$LOG" | tail -n 1)
    if [ -n "$offline" ]; then
        die "cannot install from $offline: ${reason#*: } (see $LOG); fill it on a computer of the same kind: $0 --collect DIR"
    fi
    die "cannot fetch packages: ${reason#*: } (see $LOG); check the network, or give --offline WHEELS_DIR"
}

lock_options() {
    for lock in $locks; do printf ' -r %s' "$lock"; done
}

check_source() {
    for file in $locks docs/INSTALL.md; do
        [ -e "$SOURCE/$file" ] || die "$SOURCE/$file is missing; run this from a whole checkout or a folder made with --collect"
    done
    if [ ! -e "$SOURCE/pyproject.toml" ] && ! ls "$offline"/edgecap-*.whl >/dev/null 2>&1; then
        die "neither a checkout around $0 nor an edgecap wheel in ${offline:-an --offline folder} is there"
    fi
    # Paths with spaces stay out of the options for pip.
    cd "$SOURCE"
}

# The wheel of edgecap itself: the one in the offline folder, else built from the checkout beside us, in a copy, so
# that no file of root's appears there. $1: a venv that has setuptools, $2: where to put it.
own_wheel() {
    for wheel in ${offline:+"$offline"/edgecap-*.whl}; do
        [ -e "$wheel" ] && cp "$wheel" "$2/" && return
    done
    mkdir "$2/source"
    cp -R "$SOURCE/edgecap" "$SOURCE/pyproject.toml" "$SOURCE/README.md" "$SOURCE/LICENSE" "$2/source/"
    pip_in "$1" wheel --no-deps --no-build-isolation --no-index -w "$2" "$2/source"
    rm -rf "$2/source"
}

fingerprint() {
    {
        python3 -c 'import sys; print(sys.version)'
        echo "$role"
        # shellcheck disable=SC2086
        sha256sum $locks
        if [ -n "$offline" ] && ls "$offline"/edgecap-*.whl >/dev/null 2>&1; then
            sha256sum "$offline"/edgecap-*.whl | cut -d ' ' -f 1
        else
            find edgecap pyproject.toml -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum
        fi
    } | sha256sum | cut -c 1-12
}

collect() {
    LOG=$(mktemp)
    check_python
    mkdir -p "$collect/wheels" "$collect/docs"
    collect=$(cd "$collect" && pwd)
    check_source
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv" >>"$LOG" 2>&1 || die "cannot make a virtual environment (see $LOG)"
    # shellcheck disable=SC2046
    pip_in "$work/venv" download --only-binary=:all: --require-hashes -d "$collect/wheels" $(lock_options)
    pip_in "$work/venv" install --upgrade --no-index --find-links "$collect/wheels" setuptools
    mkdir "$work/own"
    own_wheel "$work/venv" "$work/own"
    rm -f "$collect"/wheels/edgecap-*.whl
    cp "$work"/own/edgecap-*.whl "$collect/wheels/"
    cp -R "$HERE" "$collect/"
    for lock in $locks; do cp "$SOURCE/$lock" "$collect/"; done
    cp "$SOURCE/docs/INSTALL.md" "$collect/docs/"
    say "carry $collect over, then there: sudo ./systemd/install.sh --role $role --offline ./wheels"
}

install_packages() {
    mark=$(fingerprint)
    new=$PREFIX/venv-$mark
    now=$(readlink "$PREFIX/bin" 2>/dev/null || true)
    if [ "$now" = "venv-$mark/bin" ] && [ -e "$new/complete" ]; then
        say "this version is installed already"
        changed=no
        return
    fi
    if [ -n "$now" ] && [ "$upgrade" = no ]; then
        die "another version is installed ($("$PREFIX/bin/edgecap" --version)); replace it with: $0 --upgrade"
    fi
    changed=yes
    rm -rf "$new"
    trap 'rm -rf "$new"' EXIT
    say "installing packages into $new"
    mkdir -p "$PREFIX"
    # picamera2 and libcamera come from Raspberry Pi OS, not from pip: the environment sees the system's packages.
    python3 -m venv --system-site-packages "$new" >>"$LOG" 2>&1 || die "cannot make a virtual environment in $new (see $LOG)"
    # shellcheck disable=SC2046,SC2086
    pip_in "$new" install --ignore-installed --only-binary=:all: --require-hashes \
        ${offline:+--no-index --find-links "$offline"} $(lock_options)
    mkdir "$new/own"
    own_wheel "$new" "$new/own"
    pip_in "$new" install --no-deps --no-index "$new"/own/edgecap-*.whl
    rm -rf "$new/own"
    "$new/bin/edgecap" --version >>"$LOG" 2>&1 || die "the installed edgecap does not start (see $LOG)"
    touch "$new/complete"
    trap - EXIT
}

# What a Raspberry Pi's hardware needs of its own system, where apt has it: the camera, and GPIO where pip has no wheel.
install_for_pi() {
    case $role in site) return ;; esac
    for module in picamera2 lgpio; do
        if python3 -c "import $module" 2>/dev/null; then continue; fi
        if [ -z "$offline" ] && command -v apt-cache >/dev/null && apt-cache show "python3-$module" >/dev/null 2>&1; then
            say "installing python3-$module"
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "python3-$module" \
                >>"$LOG" 2>&1 && continue
        fi
        say "python3-$module is not there; a Raspberry Pi needs it: apt-get install python3-$module"
    done
}

install_files() {
    install -D -m 644 "$HERE/sysusers.d/edgecap.conf" /etc/sysusers.d/edgecap.conf
    systemd-sysusers /etc/sysusers.d/edgecap.conf >>"$LOG" 2>&1 || die "cannot make the user edgecap (see $LOG)"
    install -D -m 644 "$HERE/tmpfiles.d/edgecap.conf" /etc/tmpfiles.d/edgecap.conf
    install -d -m 755 "$ETC"
    install -d -m 700 "$ETC/credentials"
    install -D -m 644 "$HERE/udev/70-edgecap.rules" /etc/udev/rules.d/70-edgecap.rules
    install -D -m 755 "$HERE/name-port.sh" /usr/local/sbin/edgecap-name-port
    install -D -m 644 "$SOURCE/docs/INSTALL.md" /usr/local/share/doc/edgecap/INSTALL.md
    for unit in $UNIT_NAMES; do install -D -m 644 "$HERE/$unit" "$UNITS/$unit"; done
    release=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    [ "$release" -lt 254 ] || install -D -m 644 "$HERE/backoff.conf" "$UNITS/edgecap.service.d/backoff.conf"
    for file in edgecap.toml site.toml; do
        case $role-$file in rig-site.toml | site-edgecap.toml) continue ;; esac
        [ -e "$ETC/$file" ] || install -m 644 "$HERE/$file" "$ETC/$file"
    done
    echo "$role" >"$PREFIX/role"
}

# Compiling takes minutes on a small Pi, and most versions change no kernel. Numba finds what it compiled by the folder
# of the source, and a start trusts it by the sources' times: both are carried over from $1 to $2 where all else is equal.
keep_kernels() {
    [ -d "$1" ] && [ -d "$2" ] && diff -rq -x __pycache__ "$1" "$2" >/dev/null || return 0
    for file in "$1"/*.py; do touch -r "$file" "$2/${file##*/}"; done
    "$new/bin/python" -m compileall -q "$2" >>"$LOG" 2>&1 || true
    for cache in /var/cache/edgecap/numba /var/cache/edgecap-ingest/numba; do
        from=$cache/$(numba_folder "$1")
        # A copy: the old version still runs.
        [ ! -d "$from" ] || cp -a "$from" "$cache/$(numba_folder "$2")"
    done
}
numba_folder() { echo "kernels_$(printf %s "$1" | sha1sum | cut -c 1-40)"; }

switch_over() {
    [ "$changed" = yes ] || return 0
    kernels=lib/$(cd "$new/lib" && echo python3*)/site-packages/edgecap/kernels
    [ -z "$now" ] || keep_kernels "$PREFIX/${now%/bin}/$kernels" "$new/$kernels"
    ln -sfn "venv-$mark/bin" "$PREFIX/bin.new"
    mv -T "$PREFIX/bin.new" "$PREFIX/bin"
    ln -sfn "$PREFIX/bin/edgecap" /usr/local/bin/edgecap
    # The one before stays until the next upgrade: the daemon may still load from it while it closes a session.
    for old in "$PREFIX"/venv-*; do
        case $old in "$new" | "$PREFIX/${now%/bin}") ;; *) rm -rf "$old" ;; esac
    done
    case $role in site) return ;; esac
    say "compiling kernels, where they are new"
    install -d -o edgecap -g edgecap /var/cache/edgecap
    (cd / && runuser -u edgecap -- env NUMBA_CACHE_DIR=/var/cache/edgecap/numba "$PREFIX/bin/edgecap" warmup) >>"$LOG" 2>&1 ||
        die "the kernels cannot be compiled (see $LOG)"
    # What still older versions left.
    find /var/cache/edgecap/numba -mindepth 1 -maxdepth 1 ! -name "$(numba_folder "$new/$kernels")" \
        ! -name "$(numba_folder "$PREFIX/${now%/bin}/$kernels")" -exec rm -rf {} +
}

# Still the example, or has somebody written down what this rig is?
is_example() { cmp -s "$HERE/$1" "$ETC/$1"; }

start_services() {
    if booted; then
        systemctl daemon-reload
        if udevadm control --reload 2>/dev/null; then
            udevadm trigger --subsystem-match=tty --subsystem-match=iio || true
        fi
    fi
    for service in $services; do
        file=site.toml
        [ "$service" != edgecap.service ] || file=edgecap.toml
        if is_example "$file"; then
            say "edit $ETC/$file, then: systemctl enable --now $service"
            continue
        fi
        systemctl enable -q "$service"
        if ! booted; then
            say "$service will start at the next boot"
        elif [ "$start" = no ]; then
            say "start it with: systemctl start $service"
        elif [ "$changed" = yes ]; then
            # A running session is closed, sealed and written by the old version before the new one starts.
            systemctl restart --no-block "$service"
        else
            systemctl start --no-block "$service"
        fi
    done
}

install_all() {
    [ "$(id -u)" = 0 ] || die "must be run as root: sudo $0"
    command -v systemctl >/dev/null || die "there is no systemd here; run \`edgecap run\` by hand instead"
    if [ -n "$offline" ]; then
        [ -d "$offline" ] || die "$offline is not a folder; make one with: $0 --collect DIR"
        offline=$(cd "$offline" && pwd)
    fi
    : >"$LOG" || die "cannot write $LOG"
    umask 022
    check_source
    check_python
    install_for_pi
    install_packages
    install_files
    switch_over
    start_services
    say "$("$PREFIX/bin/edgecap" --version) is installed; \`edgecap doctor\` checks the rest"
}

uninstall() {
    [ "$(id -u)" = 0 ] || die "must be run as root: sudo $0 --uninstall"
    for unit in $UNIT_NAMES; do
        [ -e "$UNITS/$unit" ] || continue
        # A running session is closed and written before this returns.
        if booted; then systemctl disable -q --now "$unit" 2>/dev/null || true; else systemctl disable -q "$unit" || true; fi
        # One that has failed, as the fleet's check does to raise an alarm, would stay on systemd's list.
        if booted; then systemctl reset-failed "$unit" 2>/dev/null || true; fi
        rm -f "$UNITS/$unit"
    done
    rm -rf "$UNITS/edgecap.service.d/backoff.conf" "$PREFIX" /var/cache/edgecap /var/cache/edgecap-ingest
    rmdir "$UNITS/edgecap.service.d" 2>/dev/null || true
    rm -f /usr/local/bin/edgecap /usr/local/sbin/edgecap-name-port /etc/udev/rules.d/70-edgecap.rules \
        /etc/sysusers.d/edgecap.conf /etc/tmpfiles.d/edgecap.conf "$LOG"
    rm -rf /usr/local/share/doc/edgecap
    if booted; then systemctl daemon-reload; fi
    if [ "$purge" = yes ]; then
        segments=$(find /var/lib/edgecap/spool -name '*.seg' 2>/dev/null | wc -l)
        rm -rf /var/lib/edgecap /var/lib/edgecap-ingest "$ETC" /etc/udev/rules.d/71-edgecap-names.rules
        for user in edgecap edgecap-ingest; do
            id "$user" >/dev/null 2>&1 || continue
            userdel "$user" 2>/dev/null || say "the user $user still runs programs and stays"
            groupdel "$user" 2>/dev/null || true
        done
        say "removed, with configuration, secrets and recordings ($segments undelivered segments)"
    else
        say "removed; recordings stay in /var/lib/edgecap and /var/lib/edgecap-ingest, configuration and secrets in $ETC"
    fi
}

case $action in
install) install_all ;;
collect) collect ;;
uninstall) uninstall ;;
esac
