"""hw/PROTOCOL.md's numbers hold: its examples, its check value, its limits."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

from tests.reference import serial_frames as sf

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "hw" / "PROTOCOL.md").read_text(encoding="utf-8")


def hex_blocks() -> list[bytes]:
    blocks = re.findall(r"```\n([0-9a-f ]+)\n```", DOCUMENT)
    return [bytes.fromhex(block) for block in blocks]


def test_examples_are_what_they_say():
    ping_body, ping_line, samples_body, samples_line = hex_blocks()
    assert (len(ping_body), len(ping_line), len(samples_body), len(samples_line)) == (20, 22, 42, 44)
    for body, line in ((ping_body, ping_line), (samples_body, samples_line)):
        assert sf.cobs_encode(body) + b"\0" == line
        assert sf.cobs_decode(line[:-1]) == body
    ping = sf.open_frame(ping_line[:-1])
    assert (ping.kind, ping.seq, ping.prev_tx_done_us) == (sf.PING, 5, None)
    assert struct.unpack("<I", ping.payload) == (0x01020304,)
    assert sf.seal(sf.PING, 5, ping.payload) == ping_line
    frame = sf.open_frame(samples_line[:-1])
    assert (frame.kind, frame.seq, frame.prev_tx_done_us) == (sf.SAMPLES, 7, 1_000_210)
    samples = sf.parse_samples(frame.payload, 1, 3)
    assert (samples.index, samples.t_us) == (40, [1_000_000, 1_001_000])
    assert np.array_equal(samples.values, [[1, -2, 3], [258, 0, -32768]])


def test_crc_check_value():
    assert "0xCBF43926" in DOCUMENT
    assert sf.crc32(b"123456789") == 0xCBF43926


def test_limits_are_the_firmwares():
    header = (ROOT / "hw" / "firmware" / "core" / "protocol.h").read_text()
    stated = dict(re.findall(r"#define (EC_\w+) (\d+)u", header))
    assert stated["EC_BODY_MAX"] == "1024"
    assert len(sf.cobs_encode(b"\x01" * 1024)) + 1 == 1030
    assert (stated["EC_MAX_STREAMS"], stated["EC_MAX_CHANNELS"]) == ("8", "64")
    assert (stated["EC_BATCH_MAX"], stated["EC_BATCH_US"]) == ("10", "10000")
    for line in ("| body | 1024 bytes |", "included | 1030 bytes |", "| payload | 1008 bytes |"):
        assert line in DOCUMENT
