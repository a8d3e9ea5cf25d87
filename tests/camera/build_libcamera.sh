#!/bin/sh
# Build libcamera with only its `virtual` pipeline, and a venv with picamera2 on it, for tests without a camera.
#
#   build_libcamera.sh PREFIX
#
# PREFIX is a cache directory outside the repository; a second run with the same version returns at once.
# Needs Debian or a relative, root for apt-get install, and about three minutes on two cores. The source
# package comes from the archive that this machine already installs from, with its own trusted keys.
set -eu

SUITE=${LIBCAMERA_SUITE:-sid}
ORIG_SHA256=e27f5670fe9443eebc8e2f24235cd20b533324ef481a3684d34c78f1c3a12afb
PREFIX=${1:?usage: build_libcamera.sh PREFIX}
STAMP="$PREFIX/built-$ORIG_SHA256"
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
BASE_PYTHON=$(command -v python3)

if [ -e "$STAMP" ]; then
    install -D -m 644 "$HERE/virtual.yaml" "$PREFIX/share/libcamera/pipeline/virtual/virtual.yaml"
    echo "libcamera is in $PREFIX"
    exit 0
fi
mkdir -p "$PREFIX"
PREFIX=$(cd "$PREFIX" && pwd)
STAMP="$PREFIX/built-$ORIG_SHA256"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# The archive: the first `main` Debian source that apt knows, in the older or the newer notation.
ARCHIVE=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    awk '$2 == "main" && $3 == "Debian" && $1 !~ /security/ {print $1; exit}')
if [ -z "$ARCHIVE" ]; then
    echo "no Debian archive among this machine's apt sources" >&2
    exit 1
fi

missing=
for package in g++ ninja-build pkg-config dpkg-dev python3-dev python3-venv libyaml-dev libyuv-dev libjpeg-dev \
    libssl-dev libudev-dev libcap-dev; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing ||
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; }
fi

# A private list of sources, so that the machine's own stays as it is.
mkdir -p "$WORK/lists/partial" "$WORK/source"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $ARCHIVE $SUITE main" >"$WORK/sources.list"
PRIVATE="-o Dir::Etc::SourceList=$WORK/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$WORK/lists
    -o APT::Sandbox::User=root"
# shellcheck disable=SC2086
apt-get $PRIVATE update -q
cd "$WORK/source"
# shellcheck disable=SC2086
apt-get $PRIVATE source -q --download-only libcamera
echo "$ORIG_SHA256  $(ls libcamera_*.orig.tar.*z | head -n 1)" | sha256sum -c - ||
    echo "another release than the one this was written with; apt has checked its signature: going on" >&2
dpkg-source --no-check -x libcamera_*.dsc tree

"$BASE_PYTHON" -m venv "$WORK/build-venv"
"$WORK/build-venv/bin/pip" install -q 'meson>=1.0.1' jinja2 ply pyyaml pybind11
PATH="$WORK/build-venv/bin:$PATH"
export PATH
cd tree
meson setup "$WORK/build" --prefix="$PREFIX" -Dbuildtype=release -Dpipelines=virtual -Dipas= -Dpycamera=enabled \
    -Dcam=disabled -Dqcam=disabled -Dgstreamer=disabled -Dv4l2=disabled -Dtracing=disabled \
    -Ddocumentation=disabled -Dtest=false -Dlc-compliance=disabled -Dandroid=disabled
ninja -C "$WORK/build" install

# picamera2 and what edgecap needs; edgecap itself comes from the checkout under test, through PYTHONPATH.
"$BASE_PYTHON" -m venv "$PREFIX/venv"
"$PREFIX/venv/bin/pip" install -q --require-hashes -r "$ROOT/requirements.lock"
"$PREFIX/venv/bin/pip" install -q picamera2==0.3.38
install -D -m 644 "$HERE/virtual.yaml" "$PREFIX/share/libcamera/pipeline/virtual/virtual.yaml"
touch "$STAMP"
echo "libcamera is in $PREFIX"
