"""Complete a flash image: CRC of the second boot stage into bytes 252 to 255, as the boot ROM checks it.

boot2.py IMAGE.bin
"""

from __future__ import annotations

import sys
from pathlib import Path

STAGE_BYTES = 256


def boot_crc32(data: bytes) -> int:
    """CRC-32 as the boot ROM has it: not reflected, initially all ones, no final xor (datasheet § 2.8.1)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def complete(image: bytes) -> bytes:
    """The image with its CRC; the four bytes for it must be empty."""
    if len(image) < STAGE_BYTES or any(image[STAGE_BYTES - 4 : STAGE_BYTES]):
        raise ValueError("the second boot stage does not fit 252 bytes")
    crc = boot_crc32(image[: STAGE_BYTES - 4]).to_bytes(4, "little")
    return image[: STAGE_BYTES - 4] + crc + image[STAGE_BYTES:]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_bytes(complete(path.read_bytes()))
