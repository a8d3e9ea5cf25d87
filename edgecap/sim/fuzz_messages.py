"""Spoiled bytes for what takes messages from the network."""

from __future__ import annotations

import json
import random

import msgspec

from edgecap.codec import wire
from edgecap.codec.chunk import MAX_CHUNK_BYTES, unpack_chunk
from edgecap.codec.receipt import decode_receipt, encode_receipts
from edgecap.errors import EdgecapError
from edgecap.ingest.verify import verify_message
from edgecap.sim import mutants
from edgecap.sim.fuzz_target import Target
from edgecap.status import CommandInbox


class ChunkTarget(Target):
    """Messages on `up/{stream}`: verified as ingest does."""

    name = "chunk"

    def __init__(self) -> None:
        self._chunks = mutants.sealed_chunks()
        self._packed = [c.packed for c in self._chunks]
        self._payloads = {c.payload for c in self._chunks}
        self._fields = [wire.unpack(c.header_bytes, what="", max_bytes=1 << 20) for c in self._chunks]
        self._topic = ""

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self._chunks))
        chunk = self._chunks[number]
        self._topic = f"edgecap/v1/{mutants.SITE}/{mutants.RIG}/up/{chunk.header.stream}"
        if rng.random() < 0.35:
            return mutants.reheaded(chunk, mutants.respell(rng, self._fields[number]))
        return mutants.spoil(rng, chunk.packed, self._packed)

    def feed(self, data: bytes) -> bool:
        chunk = verify_message(self._topic, data)
        assert len(data) <= MAX_CHUNK_BYTES
        assert chunk.packed == data
        # A payload can only be one that was sealed; a header may differ, but then its hash does too.
        assert chunk.payload in self._payloads
        again = wire.pack(msgspec.to_builtins(chunk.header, builtin_types=(bytes,)))
        repacked = unpack_chunk(wire.pack([1, again, chunk.payload, chunk.signature]))
        assert repr(repacked.header) == repr(chunk.header)
        return True


class ReceiptTarget(Target):
    """What lets the spool release chunks."""

    name = "receipt"

    def __init__(self) -> None:
        self._valid = mutants.receipts()
        self._trees = [wire.unpack(r, what="", max_bytes=1 << 20) for r in self._valid]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return wire.pack(mutants.respell(rng, rng.choice(self._trees)))
        return mutants.spoil(rng, rng.choice(self._valid), self._valid)

    def feed(self, data: bytes) -> bool:
        receipt = decode_receipt(data)
        ids = set(receipt.ids())
        assert all(len(i.hash) == 32 and i.seq >= 0 for i in ids)
        again = encode_receipts(ids, worker="w", t_utc_ns=1)
        assert {i for part in again for i in decode_receipt(part).ids()} == ids
        return True


class CommandTarget(Target):
    """Commands over MQTT."""

    name = "command"

    def __init__(self) -> None:
        self._valid = mutants.commands()
        self._trees = [json.loads(c) for c in self._valid]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            tree = mutants.respell(rng, rng.choice(self._trees))
            return json.dumps(tree, default=str).encode()
        return mutants.spoil(rng, rng.choice(self._valid), self._valid)

    def feed(self, data: bytes) -> bool:
        inbox = CommandInbox()
        command = inbox.accept(data, utc_s=1e9)
        assert 0 < len(command.id) <= 64
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in command.args.items())
        try:
            inbox.accept(data, utc_s=1e9)
        except EdgecapError:
            return True
        raise AssertionError("a command was obeyed twice")
