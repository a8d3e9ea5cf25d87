#!/bin/sh
# Make what the tests of systemd/ boot: a small Debian with systemd, and the wheels that the installer will be given.
#
#   build_root.sh DIR
#
# DIR is a cache outside the repository: DIR/SUITE-KEY holds a root file system, DIR/wheels-KEY the wheels; the keys
# hash what went in. Needs root, Debian or a relative, debootstrap, and about two minutes the first time. Packages
# come from the archive that this machine already installs from, with its trusted keys.
set -eu

DIR=${1:?usage: build_root.sh DIR}
HERE=$(cd "$(dirname "$0")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)
SUITE=bookworm # its Python is the one that the wheels are for
PACKAGES=systemd,systemd-sysv,dbus,udev,python3,python3-venv,mosquitto

key() { sha256sum | cut -c 1-12; }

mkdir -p "$DIR"
root=$DIR/$SUITE-$(echo "$SUITE $PACKAGES 2" | key)
wheels=$DIR/wheels-$(cat "$REPOSITORY/requirements-rig.lock" "$REPOSITORY/requirements-site.lock" | key)

if [ ! -e "$root" ]; then
    archive=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk '$2 == "main" && $3 == "Debian" && $1 !~ /security/ {print $1; exit}')
    [ -n "$archive" ] || { echo "no Debian archive among this machine's apt sources" >&2 && exit 1; }
    rm -rf "$DIR/$SUITE-"*
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root.part" "$archive"
    rm -rf "$root.part"/var/cache/apt/archives/*.deb "$root.part"/var/lib/apt/lists/* "$root.part"/usr/share/doc
    # The tests start a broker of their own, when they want one.
    ln -sf /dev/null "$root.part/etc/systemd/system/mosquitto.service"
    ln -sf /dev/null "$root.part/etc/systemd/system/systemd-firstboot.service"
    rm -f "$root.part/etc/machine-id"
    mv "$root.part" "$root"
fi
if [ ! -e "$wheels" ]; then
    rm -rf "$DIR"/wheels-*
    "$REPOSITORY/systemd/install.sh" --collect "$wheels.part" --role both
    mkdir "$wheels.new"
    mv "$wheels.part"/wheels/*.whl "$wheels.new/"
    # Today's edgecap is built by the tests.
    rm -rf "$wheels.part" "$wheels.new"/edgecap-*.whl
    mv "$wheels.new" "$wheels"
fi
ln -sfn "$(basename "$root")" "$DIR/root"
ln -sfn "$(basename "$wheels")" "$DIR/wheels"
