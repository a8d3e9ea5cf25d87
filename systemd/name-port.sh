#!/bin/sh
# Give a serial port a name that stays: /dev/edgecap/NAME, whatever is plugged in first.
#
#   sudo edgecap-name-port left-hand /dev/ttyACM0             by the board's serial number
#   sudo edgecap-name-port left-hand /dev/ttyACM0 --by-path   by the USB socket, for boards without a number of their own
#   sudo edgecap-name-port left-hand --forget
#   edgecap-name-port                                         what is named
set -eu

RULES=${EDGECAP_NAMES_RULES:-/etc/udev/rules.d/71-edgecap-names.rules}

die() {
    echo "edgecap: $*" >&2
    exit 1
}

property() { printf '%s\n' "$properties" | sed -n "s/^$1=//p"; }

if [ $# = 0 ]; then
    [ ! -e "$RULES" ] || cat "$RULES"
    exit 0
fi
case $1 in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit 0 ;; esac
name=$1 port=${2-} how=${3---by-serial}
printf '%s' "$name" | grep -Eqx '[a-z0-9-]{1,64}' || die "the name $name is not 1 to 64 of a-z, 0-9 and '-'"
[ -n "$port" ] || die "which port? edgecap-name-port $name /dev/ttyACM0"
[ "$(id -u)" = 0 ] || [ -n "${EDGECAP_NAMES_RULES-}" ] || die "must be run as root: sudo $0 $*"

if [ "$port" != --forget ]; then
    # shellcheck disable=SC2012
    [ -e "$port" ] || die "there is no $port; what is there: $(ls /dev/ttyACM* /dev/ttyUSB* /dev/ttyAMA* 2>/dev/null | tr '\n' ' ')"
    properties=$(udevadm info --query=property --name="$port") || die "udev does not know $port"
    serial=$(property ID_SERIAL_SHORT) path=$(property ID_PATH) device=$(property DEVPATH)
    case $how in
    --by-serial)
        if [ -z "$serial" ]; then
            [ -z "$path" ] || die "$port has no serial number; name its socket: edgecap-name-port $name $port --by-path"
            match="KERNEL==\"${device##*/}\""
        else
            twins=$(for other in /dev/ttyACM* /dev/ttyUSB*; do
                [ ! -e "$other" ] || udevadm info --query=property --name="$other" | grep -Fx "ID_SERIAL_SHORT=$serial"
            done | wc -l)
            [ "$twins" -le 1 ] || die "$twins boards have the serial number $serial; name their sockets: edgecap-name-port $name $port --by-path"
            match="ENV{ID_SERIAL_SHORT}==\"$serial\", ENV{ID_USB_INTERFACE_NUM}==\"$(property ID_USB_INTERFACE_NUM)\""
        fi
        ;;
    --by-path)
        [ -n "$path" ] || die "$port is on no USB socket"
        match="ENV{ID_PATH}==\"$path\""
        ;;
    *) die "unknown option $how" ;;
    esac
fi

new=$(mktemp "$RULES.XXXXXX")
trap 'rm -f "$new"' EXIT
[ ! -e "$RULES" ] || grep -v "SYMLINK+=\"edgecap/$name\"" "$RULES" >"$new" || true
[ "$port" = --forget ] || echo "SUBSYSTEM==\"tty\", $match, SYMLINK+=\"edgecap/$name\"" >>"$new"
chmod 644 "$new"
mv "$new" "$RULES"
trap - EXIT
if udevadm control --reload 2>/dev/null; then udevadm trigger --subsystem-match=tty || true; fi
[ "$port" = --forget ] || echo "edgecap: $port is /dev/edgecap/$name: $match"
