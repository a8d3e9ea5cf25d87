#!/bin/sh
# Build the kernel's own driver for the head's IMU, which Raspberry Pi OS does not ship compiled.
#
#   ./build-imu-driver.sh                      fetch the source that fits the running kernel, build, install (asks for sudo)
#   ./build-imu-driver.sh --source DIR         use a Linux source tree that is here already
#   ./build-imu-driver.sh --driver st_lsm6dsx  LSM6DSV instead of ICM-42688-P
#   ./build-imu-driver.sh --kernel DIR         headers to build against (default: those of the running kernel)
#   ./build-imu-driver.sh --to DIR             put the modules there instead of installing them
#
# Needs: git make gcc and the kernel's headers (sudo apt install linux-headers-rpi-v8, on a Pi 5 linux-headers-rpi-2712).
# Run it again after a kernel update.
set -eu

release=$(uname -r)
driver=inv_icm42600
kernel=/lib/modules/$release/build
source='' to=''

die() {
    echo "edgecap: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --source | --driver | --kernel | --to) [ $# -gt 1 ] || die "$1 wants a value" ;;
    *) die "unknown option $1; see $0 --help" ;;
    esac
    case $1 in
    --source) source=$2 ;;
    --driver) driver=$2 ;;
    --kernel) kernel=$2 ;;
    --to) to=$2 ;;
    esac
    shift 2
done
case $driver in
inv_icm42600) options='CONFIG_INV_ICM42600=m CONFIG_INV_ICM42600_I2C=m CONFIG_INV_ICM42600_SPI=m' ;;
st_lsm6dsx) options='CONFIG_IIO_ST_LSM6DSX=m CONFIG_IIO_ST_LSM6DSX_I2C=m CONFIG_IIO_ST_LSM6DSX_SPI=m' ;;
*) die "no driver is called $driver; use inv_icm42600 or st_lsm6dsx" ;;
esac
[ -e "$kernel/Makefile" ] || die "no kernel headers in $kernel; sudo apt install linux-headers-rpi-v8 (Pi 5: linux-headers-rpi-2712)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$source" ]; then
    branch=rpi-$(printf %s "$release" | cut -d. -f1,2).y
    source=$work/linux
    git clone --quiet --depth 1 --filter=blob:none --sparse --branch "$branch" https://github.com/raspberrypi/linux "$source" ||
        die "cannot fetch branch $branch; check the network, or give --source"
    git -C "$source" sparse-checkout set "drivers/iio/imu/$driver"
fi
[ -d "$source/drivers/iio/imu/$driver" ] || die "$source has no drivers/iio/imu/$driver"
cp -R "$source/drivers/iio/imu/$driver" "$work/module"

# The kernel's build knows a module directory by M= and takes CONFIG_ from the command line.
# shellcheck disable=SC2086
make -s -C "$kernel" M="$work/module" $options modules
if [ -n "$to" ]; then
    mkdir -p "$to"
    cp "$work"/module/*.ko "$to"
else
    sudo mkdir -p "/lib/modules/$release/updates"
    sudo cp "$work"/module/*.ko "/lib/modules/$release/updates/"
    sudo depmod "$release"
fi
find "$work/module" -name '*.ko' -exec basename {} \; | sort
