#!/bin/sh
# Make what the tests of systemd/ boot: a small Debian with systemd, and the wheels that the installer will be given.
#
#   build_root.sh DIR           SUITE=trixie chooses another Debian than bookworm
#
# DIR is a cache outside the repository: DIR/root leads to a root file system, DIR/wheels to the wheels for its
# Python; both carry a hash of what went into them in their names. Needs root, Debian or a relative, debootstrap, and
# about two minutes the first time. Packages come from the archive that this machine already installs from.
set -eu

DIR=${1:?usage: build_root.sh DIR}
HERE=$(cd "$(dirname "$0")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)
SUITE=${SUITE:-bookworm}
PACKAGES=systemd,systemd-sysv,dbus,udev,python3,python3-venv,mosquitto,ca-certificates

key() { sha256sum | cut -c 1-12; }

mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)
root=$DIR/$SUITE-$(echo "$SUITE $PACKAGES 3" | key)
wheels=$DIR/wheels-$SUITE-$(cat "$REPOSITORY/requirements-rig.lock" "$REPOSITORY/requirements-site.lock" | key)

if [ ! -e "$root" ]; then
    # shellcheck disable=SC2016
    archive=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk '$2 == "main" && $3 == "Debian" && $1 !~ /security/ {print $1; exit}')
    [ -n "$archive" ] || { echo "no Debian archive among this machine's apt sources" >&2 && exit 1; }
    rm -rf "$DIR/$SUITE-"*
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root.part" "$archive"
    rm -rf "$root.part"/var/cache/apt/archives/*.deb "$root.part"/var/lib/apt/lists/* "$root.part"/usr/share/doc
    # The tests start a broker of their own; the others wait for what a container never gets.
    for unit in mosquitto systemd-firstboot systemd-networkd-wait-online; do
        ln -sf /dev/null "$root.part/etc/systemd/system/$unit.service"
    done
    rm -f "$root.part/etc/machine-id"
    mv "$root.part" "$root"
fi
if [ ! -e "$wheels" ]; then
    rm -rf "$DIR/wheels-$SUITE-"* "$DIR/collected"
    mkdir -p "$DIR/collected" "$root/mnt" "$root/media"
    # With the root's own Python, but with the network, certificates and index of this machine.
    # shellcheck disable=SC2016
    unshare --mount sh -ec '
        mount --bind "$2" "$1/mnt"
        mount --bind "$3" "$1/media"
        mount -t proc proc "$1/proc"
        mount --bind /etc/ssl/certs "$1/etc/ssl/certs"
        mount -t tmpfs tmpfs "$1/tmp"
        for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
            [ ! -e "$file" ] || { touch "$1$file" && mount --bind "$file" "$1$file"; }
        done
        exec chroot "$1" /mnt/systemd/install.sh --collect /media --role both
    ' sh "$root" "$REPOSITORY" "$DIR/collected"
    # The checkout's own edgecap is built by the tests.
    rm -f "$DIR"/collected/wheels/edgecap-*.whl
    mv "$DIR/collected/wheels" "$wheels"
    rm -rf "$DIR/collected"
fi
ln -sfn "$(basename "$root")" "$DIR/root"
ln -sfn "$(basename "$wheels")" "$DIR/wheels"
