"""The files that `make rp2040` makes: second boot stage, UF2, serial number, sizes."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.sim.firmware_build import SOURCES
from tests.hw.emulated import BOARDS, FINGERS, script

FLASH = 0x10000000
RAM = range(0x20000000, 0x20042000)


uf2, boot2 = script("uf2"), script("boot2")


def read_uf2(data: bytes) -> tuple[int, bytes]:
    """An independent reading of the format: first address and the bytes from there."""
    assert len(data) % 512 == 0
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    image, expected = bytearray(), None
    for number, block in enumerate(blocks):
        first, second, flags, address, size, index, total, family = struct.unpack_from("<8I", block)
        assert (first, second) == (0x0A324655, 0x9E5D5157)
        assert struct.unpack_from("<I", block, 508) == (0x0AB16F30,)
        assert (flags, family) == (0x2000, 0xE48BFF56)
        assert (index, total, size) == (number, len(blocks), 256)
        assert address % 256 == 0
        assert expected in (None, address)
        assert not any(block[32 + size : 508])
        image += block[32 : 32 + size]
        expected = address + size
    return expected - len(image) if expected is not None else 0, bytes(image)


@given(image=st.binary(max_size=2000), address=st.integers(0, 0xFFFF).map(lambda n: FLASH + 256 * n))
def test_uf2_carries_every_byte(image, address):
    data = uf2.uf2_blocks(image, address)
    if not image:
        assert data == b""
        return
    start, back = read_uf2(data)
    assert start == address
    assert back[: len(image)] == image
    assert not any(back[len(image) :])


@given(data=st.binary(max_size=300))
def test_the_boot_roms_crc_is_zlibs_with_every_bit_order_turned(data):
    def turned(byte: int) -> int:
        return int(f"{byte:08b}"[::-1], 2)

    reflected = zlib.crc32(bytes(turned(b) for b in data)) ^ 0xFFFFFFFF
    assert boot2.boot_crc32(data) == int(f"{reflected:032b}"[::-1], 2)


@pytest.mark.parametrize("board", BOARDS)
def test_images_boot_and_fit(images, board):
    binary = (images / f"edgecap-{board}.bin").read_bytes()
    assert struct.unpack_from("<I", binary, 252) == (boot2.boot_crc32(binary[:252]),)
    stack, start = struct.unpack_from("<II", binary, 256)
    assert stack - 4 in RAM
    assert FLASH + 256 < start < FLASH + len(binary)
    assert start % 2 == 1  # Thumb
    address, carried = read_uf2((images / f"edgecap-{board}.uf2").read_bytes())
    assert address == FLASH
    assert carried[: len(binary)] == binary
    size = subprocess.run(
        ["arm-none-eabi-size", images / f"edgecap-{board}.elf"], capture_output=True, text=True, check=True
    ).stdout
    text, data, bss = (int(n) for n in size.splitlines()[1].split()[:3])
    print(f"{board}: {len(binary)} bytes of flash, {text + data + bss} of RAM")
    assert len(binary) < 64 * 1024
    assert text + data + bss < 128 * 1024  # code runs from RAM, too


def test_a_serial_number_is_written_into_the_uf2(images, tmp_path):
    out = tmp_path / "named.uf2"
    plain = images / "edgecap-force4.bin"
    assert uf2.main([str(plain), str(out), "--serial", "left-0001"]) == 0
    _, carried = read_uf2(out.read_bytes())
    at = carried.index(b"edgecap serial=left-0001\0")
    changed = [k for k, (a, b) in enumerate(zip(carried, plain.read_bytes(), strict=False)) if a != b]
    assert set(changed) <= set(range(at, at + 64))


@pytest.mark.parametrize("serial", ["x" * 49, "tab\there", "größe"])
def test_bad_serial_numbers_are_refused_in_one_line(images, tmp_path, capsys, serial):
    out = tmp_path / "never.uf2"
    assert uf2.main([str(images / "edgecap-force4.bin"), str(out), "--serial", serial]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


def test_fitted_magnetometers_are_written_into_the_uf2(images, tmp_path, capsys):
    plain, out = images / "edgecap-glove.bin", tmp_path / "fitted.uf2"
    assert b"edgecap magnets=" + ",".join(FINGERS).encode() + b"\0" in plain.read_bytes()
    assert uf2.main([str(plain), str(out), "--magnets", "thumb ring", "--serial", "left-0001"]) == 0
    _, carried = read_uf2(out.read_bytes())
    assert b"edgecap magnets=thumb,ring\0" in carried
    assert b"edgecap serial=left-0001\0" in carried
    out.unlink()
    assert uf2.main([str(plain), str(out), "--magnets", "thumb,pinky"]) == 1
    assert capsys.readouterr().err == (
        "uf2: no finger 'pinky' can have a magnetometer: thumb, index, middle, ring can\n"
    )
    assert not out.exists()


def test_an_image_without_room_for_the_crc_is_refused():
    with pytest.raises(ValueError, match="does not fit 252 bytes"):
        boot2.complete(b"\1" * 512)


def test_the_scripts_run_with_the_systems_python(images, tmp_path):
    """They need nothing but the standard library: `make` calls them before there is any environment."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            SOURCES / "rp2040" / "uf2.py",
            images / "edgecap-imu.bin",
            tmp_path / "o.uf2",
        ],
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "o.uf2").read_bytes() == (images / "edgecap-imu.uf2").read_bytes()


def test_every_pin_is_used_once():
    header = (SOURCES / "rp2040" / "pins.h").read_text()
    pins = [int(line.split()[2]) for line in header.splitlines() if line.startswith("#define PIN_")]
    assert len(pins) == len(set(pins)) > 20
    assert all(0 <= pin <= 29 for pin in pins)


def test_no_source_refers_to_a_pin_by_number():
    for path in Path(SOURCES / "rp2040").glob("*.[ch]"):
        if path.name in ("pins.h", "gpio.h", "registers.h"):
            continue
        text = path.read_text()
        for call in ("gpio_set(", "gpio_output(", "gpio_connect(", "gpio_is_high("):
            for piece in text.split(call)[1:]:
                assert not piece[0].isdigit(), f"{path.name}: {call}{piece[:10]}"
