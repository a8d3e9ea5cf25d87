"""Sealed chunks of made-up sessions for tests of spool, store and delivery."""

from __future__ import annotations

import random
from collections.abc import Mapping

from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.records import CODEC, encode_records

BOOT = "5a0c8e1e-3f5e-4c6e-9d0f-0123456789ab"
SECOND_NS = 1_000_000_000
STREAM_KIND = {"video": "video", "event": "preview"}


class SessionMaker:
    """Seals the chunks of one session; payloads are seeded noise."""

    def __init__(
        self,
        session: str = "20260102-030405-abcd",
        *,
        site: str = "site-a",
        rig: str = "rig-01",
        boot: str = BOOT,
        seed: int = 0,
        streams: Mapping[str, str] | None = None,
        operator: str = "p-17",
        consent: str = "c-3",
    ) -> None:
        self.whose = {"operator": operator, "consent": consent}
        self.random = random.Random(seed)
        self.names = {"site": site, "rig": rig, "boot": boot, "session": session}
        self.chain = StreamChain(stream="session", **self.names)
        self.kinds = dict(streams if streams is not None else {"left-imu": "samples", "head-cam": "video"})
        self.chains: dict[str, StreamChain] = {}
        self.samples: dict[str, int] = dict.fromkeys(self.kinds, 0)
        self.t_ns = 1_000 * SECOND_NS

    def open(self) -> Chunk:
        infos = [
            {"name": n, "kind": STREAM_KIND.get(k, "imu"), "device": "d", "rate_hz_nominal": 1000.0}
            for n, k in self.kinds.items()
        ]
        names = self.names
        record = {
            "type": "open",
            "t_ns": self.t_ns,
            "v": 1,
            **names,
            "task": "fold a towel",
            **self.whose,
            "utc_ns": 1_767_323_045 * SECOND_NS,
            "utc_trusted": True,
            "streams": infos,
        }
        chunk = self.records([record])
        for name in self.kinds:
            self.chains[name] = StreamChain(stream=name, man=chunk.hash, **names)
        return chunk

    def records(self, records: list[dict[str, object]]) -> Chunk:
        payload = encode_records(records)
        return self.chain.seal(
            kind="event",
            codec=CODEC,
            payload=payload,
            t0_ns=self.t_ns,
            t1_ns=self.t_ns,
            n=len(records),
            raw_bytes=len(payload),
        )

    def data(self, stream: str, n_bytes: int = 700, n: int = 100, **more: object) -> Chunk:
        self.samples[stream] += n
        t0_ns, self.t_ns = self.t_ns, self.t_ns + SECOND_NS
        return self.chains[stream].seal(
            kind=self.kinds[stream],  # type: ignore[arg-type]
            codec="test",
            payload=self.random.randbytes(n_bytes),
            t0_ns=t0_ns,
            t1_ns=self.t_ns,
            n=n,
            raw_bytes=n_bytes,
            **more,  # type: ignore[arg-type]
        )

    def close(self, outcome: str = "complete", sent: Mapping[str, int | None] | None = None) -> Chunk:
        totals = {
            name: {
                "chunks": chain.seq,
                "last_hash": chain.prev,
                "samples": self.samples[name],
                "device_sent": (sent or {}).get(name),
            }
            for name, chain in self.chains.items()
        }
        return self.records([{"type": "close", "t_ns": self.t_ns, "outcome": outcome, "streams": totals}])

    def whole(self, rounds: int = 5, n_bytes: int = 700, outcome: str = "complete") -> list[Chunk]:
        """A session from its manifest to its close, streams interleaved."""
        chunks = [self.open()]
        for _ in range(rounds):
            chunks += [self.data(name, n_bytes) for name in self.kinds]
            chunks.append(self.records([{"type": "mark", "t_ns": self.t_ns, "kind": "note"}]))
        return [*chunks, self.close(outcome)]
