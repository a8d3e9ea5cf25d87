"""Spoiled bytes for what listens to a serial line."""

from __future__ import annotations

import random

import numpy as np

from edgecap.errors import EdgecapError
from edgecap.model import Gap, Item, SampleBlock
from edgecap.sim import mutants
from edgecap.sim.fuzz_target import Target
from edgecap.source.deframer import Deframer
from edgecap.source.descriptors import DeviceInfo
from edgecap.source.frames import Ack, Hello, parse_frame
from edgecap.source.intake import Intake
from edgecap.source.item_queue import ItemQueue


class _Items(ItemQueue):
    """Keeps what is put in for the target to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Item] = []

    def put(self, item: Item) -> None:
        self.found.append(item)


class _Listener:
    """What the intake tells of, ignored."""

    def on_hello(self, hello: Hello) -> None: ...

    def on_ack(self, ack: Ack) -> None: ...

    def on_restart_suspected(self) -> None: ...


class _Line:
    """A deframer and an intake as the serial source has them."""

    def __init__(self) -> None:
        self.queue, self.deframer = _Items(), Deframer()
        self.intake = Intake("hand", self.queue, self.deframer, _Listener())
        self.intake.describe(DeviceInfo(7, "fw", "sn", (mutants.IMU, mutants.LOAD)), "hand")
        self.now_ns = 10**12
        self.begin()

    def begin(self) -> None:
        self.deframer.clear()
        self.intake.begin(self.now_ns)

    def read(self, data: bytes) -> list[Item]:
        for at in range(0, len(data), 700):
            part = data[at : at + 700]
            self.deframer.space()[: len(part)] = part
            self.now_ns += 1_000_000
            self.deframer.filled(len(part), self.now_ns)
            self.intake.process(self.deframer.take())
        found, self.queue.found = self.queue.found, []
        return found


class LineTarget(Target):
    """Raw bytes of a serial line: no CRC survives by chance, so what comes through was sent."""

    name = "serial line"

    def __init__(self) -> None:
        self._frames = [mutants.device_frame(k, p, seq) for seq, (k, p) in enumerate(mutants.device_bodies())]
        self._line = _Line()
        self._fed = 0

    def make(self, rng: random.Random) -> bytes:
        frames = [
            f if rng.random() < 0.7 else mutants.spoil(rng, f, self._frames, 3000) for f in self._frames
        ]
        data = b"".join(frames)
        return mutants.spoil(rng, data, self._frames, 6000) if rng.random() < 0.3 else data

    def feed(self, data: bytes) -> bool:
        self._fed += 1
        if self._fed % 500 == 0:
            self._line = _Line()
        self._line.begin()
        # Delimiters end whatever the last input left unfinished.
        accepted = False
        for item in self._line.read(data + b"\0"):
            if isinstance(item, SampleBlock):
                accepted = True
                n = len(item.ticks)
                expected = np.arange(item.index, item.index + n) % 30_000
                assert item.stream == "hand-imu"
                assert np.array_equal(item.values[:, 0], expected)
                assert np.array_equal(item.values[:, 1], expected)
                assert int(item.frame_n.sum()) == n
            elif isinstance(item, Gap):
                assert item.t0_ns <= item.t1_ns
        return accepted


class FrameTarget(Target):
    """Frames whose content is spoiled and whose CRC is right: a faulty or hostile device."""

    name = "serial frame"

    def __init__(self) -> None:
        self._bodies = mutants.device_bodies()
        self._payloads = [p for _, p in self._bodies]
        self._line = _Line()
        self._fed = 0
        self._parts: list[tuple[int, bytes]] = []

    def make(self, rng: random.Random) -> bytes:
        self._parts = []
        out = bytearray()
        for seq in range(3):
            kind, payload = rng.choice(self._bodies)
            payload = mutants.spoil(rng, payload, self._payloads, 1000)
            if rng.random() < 0.1:
                kind = rng.randrange(256)
            self._parts.append((kind, payload))
            out += mutants.device_frame(kind, payload, rng.choice((seq, rng.getrandbits(32))))
        return bytes(out)

    def feed(self, data: bytes) -> bool:
        self._fed += 1
        if self._fed % 500 == 0:
            self._line = _Line()
        self._line.begin()
        accepted = False
        for item in self._line.read(data):
            if isinstance(item, SampleBlock):
                accepted = True
                assert len(item.ticks) == len(item.values) == int(item.frame_n.sum())
        for kind, payload in self._parts:
            try:
                frame = parse_frame(kind, payload)
            except EdgecapError:
                continue
            if frame is not None:
                # Later versions append fields: what is understood is the front of what was said.
                assert type(frame).parse(frame.pack()) == frame or b"\x7f" in payload or b"\xff" in payload
        return accepted
