"""Frames to items without any I/O: a made-up device, whose bytes are damaged in known ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.errors import SourceError
from edgecap.model import DeviceEvent, Gap, Item, SampleBlock, StreamInfo
from edgecap.source.deframer import Deframer
from edgecap.source.descriptors import DeviceInfo, HelloParts, stream_infos
from edgecap.source.frames import Ack, Channel, Descriptor, Event, EventCode, Hello, Kind, Log
from edgecap.source.intake import Intake
from edgecap.source.item_queue import ItemQueue
from edgecap.source.stream_track import StreamTrack
from tests.reference import framing as reference

IMU = Descriptor(0, 1, 1, 1_000_000, 0, "imu", (Channel("x", "g", 0.5, 1.0), Channel("y", "g", 0.5, 1.0)))
LOAD = Descriptor(1, 2, 2, 100_000, -5, "load", (Channel("f", "N", 0.1, 0.0),))
DEVICE = DeviceInfo(7, "fw", "sn", (IMU, LOAD))


class Rig:
    """An intake with everything around it, fed with frames or bytes."""

    def __init__(self) -> None:
        self.queue, self.deframer = ItemQueue(100_000), Deframer()
        self.intake = Intake("hand", self.queue, self.deframer, self)
        self.intake.describe(DEVICE, "hand on port")
        self.seq = 0
        self.now_ns = 10**12
        self.suspected = 0
        self.acks: list[Ack] = []

    def on_hello(self, hello: Hello) -> None: ...

    def on_ack(self, ack: Ack) -> None:
        self.acks.append(ack)

    def on_restart_suspected(self) -> None:
        self.suspected += 1

    def wire(self, kind: int, payload: bytes) -> bytes:
        self.seq += 1
        return reference.wire(kind, payload, seq=self.seq - 1, prev_tx_done_us=0 if self.seq > 1 else None)

    def read(self, data: bytes) -> None:
        while data:
            self.deframer.space()[: len(data[:4000])] = data[:4000]
            self.now_ns += 1_000_000
            self.deframer.filled(len(data[:4000]), self.now_ns)
            self.intake.process(self.deframer.take())
            data = data[4000:]

    def hello(self, boot_id: int = 7) -> None:
        self.read(self.wire(Kind.HELLO, Hello(boot_id, 0, 2, "fw", "sn", IMU).pack()))

    def items(self) -> list[Item]:
        found, self.queue._items = list(self.queue._items), type(self.queue._items)()
        return found


def samples(stream: int, index: int, n: int, t0_us: int, step_us: int = 1000) -> bytes:
    width, channels = ((2, 2), (3, 1))[stream]
    rows = [[index + k] * channels for k in range(n)]
    return reference.samples_payload(stream, index & 0xFFFFFFFF, t0_us & 0xFFFFFFFF, step_us, rows, width)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from(["ok", "ok", "ok", "lost", "overrun", "twice"])),
        max_size=30,
    ),
    st.integers(1, 400),
)
def test_received_and_lost_add_up_however_the_bytes_are_cut(batches: list[tuple[int, str]], cut: int) -> None:
    rig = Rig()
    rig.hello()
    rig.intake.begin(rig.now_ns)
    wire, index, lost = b"", 0, {"line": 0, "overrun": 0}
    for n, fate in batches:
        payload = samples(0, index, n, 1000 * index)
        if fate == "overrun":
            wire += rig.wire(Kind.EVENT, Event(EventCode.OVERRUN, 0, 0, n).pack())
        else:
            frame = rig.wire(Kind.SAMPLES, payload)
            wire += {"ok": frame, "lost": b"\7" + frame[1:], "twice": frame + frame}[fate]
        index += n
    for at in range(0, len(wire), cut):
        rig.read(wire[at : at + cut])
    sent = rig.intake.end((index, 0), rig.now_ns)
    assert sent == {"hand-imu": index, "hand-load": 0}
    position = 0
    for item in rig.items():
        if isinstance(item, Gap):
            assert item.t0_ns <= item.t1_ns
            lost[item.cause] += item.lost
            position += item.lost
        elif isinstance(item, SampleBlock):
            assert item.index == position
            assert item.values[:, 0].tolist() == list(range(position, position + len(item.ticks)))
            assert (np.diff(item.ticks) == 1000).all()
            position += len(item.ticks)
    assert position == index
    assert sum(lost.values()) == sum(n for n, fate in batches if fate in ("lost", "overrun"))


def test_what_precedes_the_start_belongs_to_no_recording() -> None:
    rig = Rig()
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 0, 5, 0)))  # before HELLO: not even understood
    rig.hello()
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 5, 5, 5000)))
    assert rig.items() == []
    assert rig.intake.stray == 1


def test_samples_before_a_new_boot_in_the_same_read_are_kept() -> None:
    rig = Rig()
    rig.hello()
    rig.intake.begin(rig.now_ns)
    data = rig.wire(Kind.SAMPLES, samples(0, 0, 5, 0))
    rig.seq = 0
    data += rig.wire(Kind.HELLO, Hello(8, 0, 2, "fw", "sn", IMU).pack())
    data += rig.wire(Kind.SAMPLES, samples(0, 0, 5, 0))
    rig.read(data)
    assert [type(i).__name__ for i in rig.items()] == ["SampleBlock", "DeviceEvent"]
    assert rig.intake.stray == 1  # after the reset, before it is started again
    rig.intake.restart(rig.now_ns)
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 0, 5, 9000)))
    gap, block = rig.items()
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.lost) == ("reset", -1)
    assert isinstance(block, SampleBlock)
    assert (block.index, block.fit.device_boot) == (5, 8)
    assert rig.intake.end((5, 0), rig.now_ns)["hand-imu"] == 10


def test_a_pause_without_loss_is_a_gap_of_nothing() -> None:
    rig = Rig()
    rig.hello()
    rig.intake.begin(rig.now_ns)
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 0, 5, 0)) + rig.wire(Kind.SAMPLES, samples(0, 5, 5, 400_000)))
    first, gap, second = rig.items()
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.lost, (gap.t1_ns - gap.t0_ns) // 10**6) == ("silent", 0, 396)
    assert [len(b.ticks) for b in (first, second) if isinstance(b, SampleBlock)] == [5, 5]


def test_index_and_counter_wrap() -> None:
    rig = Rig()
    rig.hello()
    rig.intake.begin(rig.now_ns)
    track = rig.intake._tracks[0]
    track._next = 2**32 - 5
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 2**32 - 5, 5, 2**32 - 5000)))
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 2**32, 5, 2**32)))
    blocks = [i for i in rig.items() if isinstance(i, SampleBlock)]
    assert [b.index for b in blocks] == [2**32 - 5, 2**32]
    assert blocks[1].ticks[0] - blocks[0].ticks[0] == 5000
    assert rig.intake.end((5, 0), rig.now_ns)["hand-imu"] == 2**32 + 5


def test_silence_is_told_once_per_silence() -> None:
    rig = Rig()
    rig.hello()
    rig.intake.begin(rig.now_ns)
    for _ in range(3):
        rig.intake.check_silent(rig.now_ns + 1_500_000_000)
    told = [(i.text, i.sensor) for i in rig.items() if isinstance(i, DeviceEvent)]
    assert told == [("hand-imu is silent", "hand-imu"), ("hand-load is silent", "hand-load")]


def test_a_stream_whose_frames_are_refused_is_not_merely_silent() -> None:
    rig = Rig()
    rig.hello()
    rig.intake.begin(rig.now_ns)

    def told() -> list[str]:
        rig.intake.check_silent(rig.now_ns + 1_500_000_000)
        return [i.text for i in rig.items() if isinstance(i, DeviceEvent)]

    for k in range(3):
        rig.read(rig.wire(Kind.SAMPLES, samples(0, 5 * k, 5, 5000 * k) + b"\0"))  # a byte too many
        rig.read(rig.wire(Kind.SAMPLES, samples(1, 0, 2, 20_000 * k)))  # the index stands still
    assert rig.intake.bad_payload == 0, "counted by the kernel"
    assert told() == [
        "hand-imu is silent: 3 SAMPLES frames came, none of which has the length of rows of 2 × int16; "
        "correct its firmware (SAMPLES in hw/PROTOCOL.md)",
        "hand-load is silent: 2 SAMPLES frames came, whose index does not go on from one to the next; "
        "correct its firmware (SAMPLES in hw/PROTOCOL.md)",
    ]
    rig.read(
        rig.wire(Kind.SAMPLES, samples(0, 0, 5, 60_000)) + rig.wire(Kind.SAMPLES, samples(1, 2, 1, 60_000))
    )
    assert told() == ["hand-imu is silent", "hand-load is silent"], "what was wrong is over"
    rig.read(rig.wire(Kind.SAMPLES, samples(0, 5, 5, 65_000)))
    rig.read(rig.wire(Kind.SAMPLES, b"\x02" + samples(1, 3, 1, 65_000)[1:]))
    assert told() == [
        "hand-imu is silent: SAMPLES frames came of stream 2, its HELLO describes 0 to 1; "
        "correct its firmware (SAMPLES in hw/PROTOCOL.md)"
    ], "the other one was said to be silent already"


def test_a_slow_stream_is_silent_later() -> None:
    track = StreamTrack(StreamInfo("toy-temperature", "scalar", "toy", 0.5, "int16"), 2)
    track.begin(0, 0)
    assert [track.check_silent(t_ms * 1_000_000) for t_ms in (1500, 4900, 5100, 9000)] == [
        False, False, True, False
    ]  # fmt: skip


def test_frames_that_mean_nothing_are_counted() -> None:
    rig = Rig()
    rig.hello()
    rig.read(rig.wire(0x77, b"what"))
    rig.read(rig.wire(Kind.EVENT, b"\1"))
    rig.read(rig.wire(Kind.LOG, bytes(5) + b"\xff"))
    rig.read(rig.wire(Kind.ACK, b""))
    rig.read(rig.wire(Kind.LOG, Log(20, 5, "hello").pack()))
    found = rig.intake.statistics(reconnects=0, not_sent=0)
    assert (found.unknown_type, found.bad_payload, found.frames) == (1, 3, 6)
    assert [i.text for i in rig.items() if isinstance(i, DeviceEvent)] == ["hello"]
    assert rig.acks == []


def test_a_fall_or_a_leap_of_the_frame_number_asks_who_it_is() -> None:
    rig = Rig()
    rig.hello()
    rig.seq = 60  # so many frames may be lost
    rig.read(rig.wire(Kind.LOG, Log(20, 5, "x").pack()))
    assert rig.suspected == 0
    rig.seq = 1000
    rig.read(rig.wire(Kind.LOG, Log(20, 5, "x").pack()))
    assert rig.suspected == 1
    rig.seq = 1
    rig.read(rig.wire(Kind.LOG, Log(20, 5, "x").pack()))
    assert rig.suspected == 2
    assert rig.intake.lost_frames == 998


def test_parts_of_two_boots_are_not_mixed() -> None:
    parts = HelloParts()
    assert parts.add(Hello(7, 0, 2, "fw", "sn", IMU)) is None
    assert parts.add(Hello(8, 1, 2, "fw", "sn", LOAD)) is None
    assert parts.add(Hello(8, 0, 2, "fw", "sn", IMU)) == DeviceInfo(8, "fw", "sn", (IMU, LOAD))
    assert HelloParts().add(Hello(8, 0, 0, "fw", "sn", None)) == DeviceInfo(8, "fw", "sn", ())


def test_two_streams_of_one_name_are_refused() -> None:
    twice = DeviceInfo(7, "fw", "sn", (IMU, Descriptor(1, 1, 1, 1, 0, "imu", IMU.channels)))
    with pytest.raises(SourceError, match="stream 1 'imu': its name is that of an earlier stream"):
        stream_infos(twice, "hand", "hand on port")
    wide = tuple(Channel(f"c{k}", "N", 1.0, 0.0) for k in range(255))
    with pytest.raises(SourceError, match="one sample of 1020 bytes does not fit a frame"):
        stream_infos(
            DeviceInfo(7, "fw", "sn", (Descriptor(0, 1, 4, 1, 0, "x", wide),)), "hand", "hand on port"
        )


def test_events_of_a_stream_that_is_not_described_are_told_without_a_name() -> None:
    rig = Rig()
    rig.hello()
    for code in (EventCode.SENSOR_FAULT, EventCode.SENSOR_OK, EventCode.OVERRUN):
        rig.read(rig.wire(Kind.EVENT, Event(code, 5, 0, 3).pack()))
    told = [(i.text, i.sensor) for i in rig.items() if isinstance(i, DeviceEvent)]
    lost = "it overran: 3 samples lost in the device"
    assert told == [("sensor fault", ""), ("sensor is back", ""), (lost, "")]
