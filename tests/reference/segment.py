"""A slow reader of segment files, written from edgecap/spool/FORMAT.md alone."""

from __future__ import annotations


def crc32(data: bytes) -> int:
    """CRC-32 (IEEE 802.3), bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def number(data: bytes, at: int, n: int) -> int:
    return sum(data[at + i] << (8 * i) for i in range(n))


def header_is_valid(data: bytes) -> bool:
    return (
        len(data) >= 64
        and data[:8] == bytes([0x89, 0x45, 0x43, 0x53, 0x45, 0x47, 0x0D, 0x0A])
        and number(data, 8, 2) == 1
        and number(data, 10, 2) == 64
        and number(data, 60, 4) == crc32(data[:60])
    )


def whole_records(data: bytes) -> list[tuple[int, int, bytes]]:
    """(offset, type, body) of every whole record, trying each byte as the beginning of one."""
    found: list[tuple[int, int, bytes]] = []
    uid = number(data, 16, 8) if header_is_valid(data) else None
    at = 64 if uid is not None else 0
    while at + 32 <= len(data):
        length = number(data, at + 4, 4)
        if (
            data[at : at + 4] == bytes([0xEC, 0x52, 0x63, 0x1E])
            and 0 < length <= 4 * 1024 * 1024
            and at + 32 + length <= len(data)
            and uid in (None, number(data, at + 8, 8))
        ):
            covered = at.to_bytes(8, "little") + data[at : at + 28] + data[at + 32 : at + 32 + length]
            if crc32(covered) == number(data, at + 28, 4):
                uid = number(data, at + 8, 8)
                found.append((at, number(data, at + 24, 4), data[at + 32 : at + 32 + length]))
                at += 32 + length
                continue
        at += 1
    return found
