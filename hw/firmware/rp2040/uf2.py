"""Write a flash image as UF2, the format of the RP2040's BOOTSEL drive, with what is this board's own.

    uf2.py IMAGE.bin OUT.uf2 [--serial NAME] [--magnets FINGER,FINGER…]

UF2: blocks of 512 bytes, each with up to 256 bytes of payload, its address, and its number among all
(github.com/microsoft/uf2). The family id says that the image is for the RP2040.
"""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path

MAGIC_FIRST, MAGIC_SECOND, MAGIC_LAST = 0x0A324655, 0x9E5D5157, 0x0AB16F30
FAMILY_PRESENT = 0x00002000
FAMILY_RP2040 = 0xE48BFF56
FLASH = 0x10000000
PAYLOAD_BYTES = 256
DATA_BYTES = 476
SERIAL_MARK = b"edgecap serial="
MAGNETS_MARK = b"edgecap magnets="
FIELD_BYTES = 64
FINGERS = ("thumb", "index", "middle", "ring")
"""That can have a magnetometer, as the image names them."""


def uf2_blocks(image: bytes, address: int = FLASH) -> bytes:
    """The image as UF2; its end is filled with zeros to whole payloads."""
    image += bytes(-len(image) % PAYLOAD_BYTES)
    total = len(image) // PAYLOAD_BYTES
    out = bytearray()
    for number in range(total):
        at = number * PAYLOAD_BYTES
        out += struct.pack(
            "<8I",
            MAGIC_FIRST,
            MAGIC_SECOND,
            FAMILY_PRESENT,
            address + at,
            PAYLOAD_BYTES,
            number,
            total,
            FAMILY_RP2040,
        )
        out += image[at : at + PAYLOAD_BYTES].ljust(DATA_BYTES, b"\0")
        out += struct.pack("<I", MAGIC_LAST)
    return bytes(out)


def with_field(image: bytes, mark: bytes, text: str) -> bytes:
    """The image with this text behind the mark."""
    raw = mark + text.encode("ascii")
    at = image.find(mark)
    if at < 0 or image.find(mark, at + 1) >= 0:
        raise ValueError(f"the image has no field {mark.decode()!r}")
    return image[:at] + raw.ljust(FIELD_BYTES, b"\0") + image[at + FIELD_BYTES :]


def with_serial(image: bytes, serial: str) -> bytes:
    """The image with this serial number."""
    most = FIELD_BYTES - len(SERIAL_MARK) - 1
    if not (serial.isprintable() and serial.isascii()) or len(serial) > most:
        raise ValueError(f"serial number {serial!r}: 1 to {most} ASCII characters")
    return with_field(image, SERIAL_MARK, serial)


def with_magnets(image: bytes, magnets: str) -> bytes:
    """The image for a board that has magnetometers only on these fingers."""
    fingers = magnets.replace(",", " ").split()
    if unknown := [f for f in fingers if f not in FINGERS]:
        raise ValueError(f"no finger {unknown[0]!r} can have a magnetometer: {', '.join(FINGERS)} can")
    return with_field(image, MAGNETS_MARK, ",".join(fingers))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write a flash image as UF2.")
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--serial", default="", help="serial number; empty: the flash chip's own")
    parser.add_argument("--magnets", default="", help="fingers with a magnetometer; empty: as in the image")
    options = parser.parse_args(arguments)
    image = options.image.read_bytes()
    try:
        if options.serial:
            image = with_serial(image, options.serial)
        if options.magnets:
            image = with_magnets(image, options.magnets)
    except ValueError as error:
        sys.stderr.write(f"uf2: {error}\n")
        return 1
    options.out.write_bytes(uf2_blocks(image))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
