"""What edgecap does on picamera2's event thread, and without picamera2."""

from __future__ import annotations

import asyncio
import os
import socket
from fractions import Fraction
from types import SimpleNamespace

import pytest

from edgecap.clock import read_pair
from edgecap.errors import SourceError
from edgecap.source.camera_clock import FrameNumbers, HostClock
from edgecap.source.camera_encoder import H264Encoder
from edgecap.source.camera_lines import read_line_ns
from edgecap.source.camera_link import FRAME, MessageBuffer, unpack_frame
from edgecap.source.camera_outbox import OUTBOX_FRAMES, Outbox
from edgecap.source.camera_pi import PiCamera, PiSpec, PiWorker
from edgecap.source.camera_pi_sink import FrameSink
from edgecap.source.camera_synthetic import DrawnScene

FRAME_NS = 33_333_333


def packets(n):
    scene = DrawnScene(160, 96, Fraction(30), 0)
    encoder = H264Encoder(160, 96, scene.rate_hz, 500)
    return [
        encoder.encode(f, k * FRAME_NS).data for (k, f), _ in zip(scene.frames(0), range(n), strict=False)
    ]


@pytest.fixture
def link():
    ours, theirs = socket.socketpair()
    outbox = Outbox(theirs)
    yield ours, outbox
    ours.shutdown(socket.SHUT_RDWR)
    outbox.close(2)
    ours.close()
    theirs.close()


def sink_of(outbox):
    return FrameSink(outbox, HostClock("monotonic"), FrameNumbers(FRAME_NS), line_ns=18_000)


def request(tick, **metadata):
    return SimpleNamespace(get_metadata=lambda: {"SensorTimestamp": tick, **metadata})


def received(sock, n):
    buffer, frames = MessageBuffer(), []
    sock.settimeout(60)
    while len(frames) < n:
        frames += [unpack_frame(body) for kind, body in buffer.feed(sock.recv(1 << 20)) if kind == FRAME]
    return frames


def test_raw_times_travel_with_their_frame(link):
    sock, outbox = link
    sink = sink_of(outbox)
    encoded = packets(4)  # first: to load the encoder may take seconds, and frames go stale
    start = read_pair().monotonic_ns - 400_000_000
    for k, data in enumerate(encoded):
        tick = start + k * FRAME_NS
        sink.note_request(request(tick, ExposureTime=8000 + k))
        sink.take(data, int(tick / 1000) + (k == 2))  # a float's rounding may be off by one
    assert sink.failure == ""
    frames = received(sock, 4)
    assert [f.tick for f in frames] == [start + k * FRAME_NS for k in range(4)]
    assert [f.exposure_ns for f in frames] == [8_000_000, 8_001_000, 8_002_000, 8_003_000]
    assert {f.line_ns for f in frames} == {18_000}
    assert [f.key for f in frames] == [True, False, False, False]
    assert (sink.produced, sink.unknown) == (4, 0)


def test_a_frame_that_a_starved_machine_hands_over_late_is_kept(link):
    sock, outbox = link
    sink = sink_of(outbox)
    (data,) = packets(1)
    tick = read_pair().monotonic_ns - 3_000_000_000
    sink.note_request(request(tick))
    sink.take(data, tick // 1000)
    (frame,) = received(sock, 1)
    assert (frame.tick, sink.failure) == (tick, "")


def test_a_frame_without_metadata_keeps_its_microseconds(link):
    sock, outbox = link
    sink = sink_of(outbox)
    (data,) = packets(1)
    t_us = (read_pair().monotonic_ns - 50_000_000) // 1000
    sink.take(data, t_us)
    (frame,) = received(sock, 1)
    assert (frame.tick, frame.exposure_ns, sink.unknown) == (t_us * 1000, 0, 1)


@pytest.mark.parametrize(
    "act",
    [
        lambda sink: sink.note_request(SimpleNamespace(get_metadata=dict)),
        lambda sink: sink.note_request(None),
        lambda sink: sink.take(None, 0),
        lambda sink: sink.take(packets(1)[0], 5),  # a timestamp in no host clock
    ],
)
def test_nothing_raises_into_picamera2(link, act):
    sink = sink_of(link[1])
    act(sink)
    assert sink.failure


def test_a_full_outbox_drops_up_to_the_next_key_frame(link):
    sock, outbox = link
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sink = sink_of(outbox)
    data = packets(62)
    start = read_pair().monotonic_ns - 450_000_000
    n = 0
    while outbox.has_room():  # nobody reads
        sink.take(data[n % 31], (start + n * 100_000) // 1000)
        n += 1
    assert n >= OUTBOX_FRAMES
    while n < 2000:  # more than fits into the socket, too, once the thread has had its turn
        sink.take(data[1], (start + n * 100_000) // 1000)
        n += 1
    got = received(sock, OUTBOX_FRAMES)
    outbox.drain(60)
    sink.take(data[2], (start + n * 100_000) // 1000)
    sink.take(data[31], (start + (n + 1) * 100_000) // 1000)
    while got[-1].cause != "queue":
        got += received(sock, 1)
    *kept, after = got
    assert [f.index for f in kept] == list(range(len(kept)))
    assert len(kept) < n
    assert (after.index, after.key) == (n + 1, True)


def test_missing_picamera2_names_its_package():
    spec = PiSpec("head", "", 640, 480, 30.0, 2000, "auto")
    with pytest.raises(SourceError, match="picamera2 is missing") as caught:
        PiWorker(spec).prepare()
    assert "apt install python3-picamera2" in caught.value.fix

    async def run():
        async with PiCamera("head").open():
            pass

    with pytest.raises(SourceError, match="apt install python3-picamera2"):
        asyncio.run(run())


def test_line_time_is_unknown_without_a_sensor():
    assert read_line_ns([], 1920) == 0
    assert read_line_ns([os.makedev(81, 250)], 1920) == 0
    assert read_line_ns([os.makedev(1, 3)], 1920) == 0


CSI = {"Id": "/base/soc/i2c0mux/i2c@1/imx708@1a", "Model": "imx708_wide"}
USB = {"Id": "/base/scb/pcie@7d500000/pci@0,0/usb@0,0-1.3:1.0-046d:0825", "Model": "C270"}


def choose(cameras, camera_id=""):
    return PiWorker(PiSpec("head", camera_id, 640, 480, 30.0, 2000, "auto"))._choose(cameras)


def test_a_usb_camera_is_left_to_the_other_back_end():
    assert choose([CSI, USB]) == choose([CSI, USB], "imx708_wide") == 0
    assert choose([USB, CSI]) == 1
    for cameras, wanted in (([USB], ""), ([CSI, USB], USB["Id"])):
        with pytest.raises(SourceError, match="is a USB camera") as caught:
            choose(cameras, wanted)
        assert "uvc" in caught.value.fix
