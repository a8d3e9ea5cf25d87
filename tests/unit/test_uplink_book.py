"""Bookkeeping of deliveries and the bandwidth cap, on made-up clocks."""

from __future__ import annotations

import random

import pytest

from edgecap.codec.chunk import ChunkId
from edgecap.spool import Entry
from edgecap.uplink.book import STRIKES, DeliveryBook
from edgecap.uplink.bucket import TokenBucket
from edgecap.uplink.statistics import Latencies

S = 1_000_000_000


def entry(k: int, size: int = 100) -> Entry:
    return Entry(ChunkId("b", "s", "x", k, k.to_bytes(32, "big")), "samples", size, 0, "lab", "rig")


def book(**options: object) -> DeliveryBook:
    settings = {"resend_s": 60.0, "resend_most_s": 3600.0, "budget_bytes": 1000, "most": 100, **options}
    return DeliveryBook(**settings)  # type: ignore[arg-type]


def test_a_receipt_ends_a_delivery() -> None:
    b = book()
    delivery = b.take_off(entry(1), 0)
    assert (len(b.flying), b.flying_bytes, b.fresh_bytes) == (1, 100, 100)
    b.landed(delivery, 1 * S)
    assert (len(b.flying), b.flying_bytes, b.fresh_bytes) == (0, 0, 100)
    assert b.receipted(entry(1).id, 2 * S) == 2 * S
    assert b.receipted(entry(1).id, 2 * S) is None
    assert (b.open, b.fresh_bytes) == ({}, 0)


def test_a_receipt_may_come_before_the_brokers_answer() -> None:
    b = book()
    delivery = b.take_off(entry(1), 0)
    b.receipted(entry(1).id, 1)
    b.landed(delivery, 2)
    assert (b.open, b.flying, b.flying_bytes, b.fresh_bytes) == ({}, set(), 0, 0)


def test_resends_come_after_60_s_then_exponentially_up_to_an_hour() -> None:
    b = book()
    now_ns, waits = 0, []
    for _ in range(9):
        b.landed(b.take_off(entry(1), now_ns), now_ns)
        before_ns = now_ns
        while b.due(now_ns) is None:
            now_ns += S
        waits.append((now_ns - before_ns) // S)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_silence_of_ingest_holds_everything_but_probes_and_its_voice_ends_the_hold() -> None:
    b = book(budget_bytes=10_000)
    for k in range(5):
        b.landed(b.take_off(entry(k), 0), 0)
    b.age(59 * S)
    assert b.hold == ""
    b.age(60 * S)
    assert (b.hold, b.hold_until_ns) == ("no receipts", 60 * S)
    probe = b.due(60 * S)
    assert probe is not None
    b.landed(b.take_off(probe.entry, 60 * S), 61 * S)
    assert b.hold_until_ns == 181 * S
    assert b.receipted(entry(99).id, 62 * S) is None
    assert b.hold == "no receipts", "a receipt for what was never sent is nobody's voice"
    b.receipted(probe.entry.id, 62 * S)
    assert b.hold == ""
    found = []
    while (due := b.due(62 * S)) is not None:
        found.append(due.entry.id.seq)
        b.landed(b.take_off(due.entry, 62 * S), 62 * S)
    assert sorted([*found, probe.entry.id.seq]) == [0, 1, 2, 3, 4]


def test_one_chunk_without_receipt_holds_nothing_up_while_others_get_theirs() -> None:
    b = book()
    for k in range(200):
        now_ns = k * S
        assert b.room(100)
        b.landed(b.take_off(entry(k), now_ns), now_ns)
        if k:
            b.receipted(entry(k).id, now_ns + 1)
        b.age(now_ns)
        assert b.hold == ""
    assert list(b.open) == [entry(0).id]
    assert b.fresh_bytes == 0


def test_the_budget_and_the_number_of_open_deliveries_are_bounded() -> None:
    b = book(most=12)
    for k in range(10):
        assert b.room(100)
        b.landed(b.take_off(entry(k), 0), 0)
    assert not b.room(100)
    b.age(60 * S)
    assert b.room(100)
    for k in range(10, 12):
        b.take_off(entry(k), 60 * S)
    assert not b.room(1)
    assert book(budget_bytes=10).room(100)  # a chunk larger than the whole budget still goes, alone


def test_the_book_holds_what_is_open_and_not_what_was_sent_in_the_last_minute() -> None:
    b = book(budget_bytes=10_000)
    b.landed(b.take_off(entry(0), 0), 0)  # its receipt does not come: its resend stands before the others'
    for k in range(1, 20_000):
        now_ns = k * S // 1000
        b.age(now_ns)
        b.due(now_ns)
        b.landed(b.take_off(entry(k), now_ns), now_ns)
        b.receipted(entry(k).id, now_ns)
        assert len(b._due) + len(b._ageing) < 200
    assert b.open.keys() == {entry(0).id}
    assert b.due(60 * S) is b.open[entry(0).id]


def test_several_refusals_in_flight_count_once() -> None:
    b = book()
    flights = [b.take_off(entry(k), 0) for k in range(8)]
    for flight in flights:
        b.refused(flight, 5)
    assert (b.hold, b.hold_until_ns) == ("refused", S + 5)
    b.refused(b.take_off(entry(0), 2 * S), 2 * S)
    assert b.hold_until_ns == 4 * S
    b.landed(b.take_off(entry(1), 5 * S), 5 * S)
    assert b.hold == ""


def test_unheard_chunks_go_back_to_the_spool() -> None:
    b = book()
    b.unheard(b.take_off(entry(1), 0), 0)
    assert (b.open, b.hold) == ({}, "nobody listens")
    assert b.crashed(1, peer_closed=True) == []
    assert b.hold == ""


def test_an_innocent_chunk_is_never_condemned() -> None:
    """Lost connections alone prove nothing: others must have gone through in between."""
    b = book()
    now_ns = 0
    for _ in range(50):
        b.take_off(entry(1), now_ns)
        assert b.crashed(now_ns, peer_closed=True) == []
        now_ns += 100 * S
    b.take_off(entry(1), now_ns)
    for _ in range(STRIKES * 2):
        b.landed(b.take_off(entry(2), now_ns), now_ns)
        b.take_off(entry(1), now_ns)
        assert b.crashed(now_ns, peer_closed=False) == []  # timeouts are the link's fault


def test_a_guilty_chunk_is_found() -> None:
    b = book()
    guilty = []
    for k in range(STRIKES):
        b.landed(b.take_off(entry(100 + k), k), k)
        b.take_off(entry(1), k)
        guilty = b.crashed(k, peer_closed=True)
    assert [delivery.entry.id.seq for delivery in guilty] == [1]
    assert b.suspicious(guilty[0])


@pytest.mark.parametrize("seed", range(30))
def test_the_books_balance_whatever_happens(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    b = book(budget_bytes=3000, most=50)
    now_ns, k = 0, 0
    for _ in range(3000):
        now_ns += rng.randrange(20 * S)
        b.age(now_ns)
        due = b.due(now_ns)
        flying = [b.open[i] for i in b.flying]
        match rng.randrange(8):
            case 0 | 1 if b.room(100):
                k += 1
                b.take_off(entry(k, rng.randrange(1, 300)), now_ns)
            case 2 if due is not None:
                b.take_off(due.entry, now_ns)
            case 3 if flying:
                b.landed(rng.choice(flying), now_ns)
            case 4 if flying:
                rng.choice([b.refused, b.unheard])(rng.choice(flying), now_ns)
            case 5 if b.open:
                b.receipted(rng.choice(list(b.open)), now_ns)
            case 6 if rng.random() < 0.2:
                for delivery in b.crashed(now_ns, peer_closed=rng.random() < 0.5):
                    b.condemned(delivery)
                    b.forget(delivery.entry.id)
            case _:
                pass
        assert b.flying <= b.open.keys()
        assert b.flying_bytes == sum(b.open[i].entry.bytes for i in b.flying)
        assert b.fresh_bytes == sum(d.entry.bytes for d in b.open.values() if not d.stale)
        assert all(d.state == "flying" for i, d in b.open.items() if i in b.flying)
        assert len(b.open) <= 50
        assert {i for i, d in b.open.items() if not d.stale} == b._ageing.keys()
    # Nothing is ever stuck: whatever is open becomes due in the end.
    b.crashed(now_ns, peer_closed=False)
    left = set(b.open)
    now_ns += 3601 * S
    while (delivery := b.due(now_ns)) is not None:
        left.discard(delivery.entry.id)
        b.take_off(delivery.entry, now_ns)
    assert not left


def test_the_bucket_keeps_its_rate() -> None:
    bucket = TokenBucket(1000.0)
    now_ns, sent = 0, 0
    for _ in range(200):
        while (wait_s := bucket.wait_s(300, now_ns)) > 0:
            now_ns += int(wait_s * 1e9) + 1
        sent += 300
    assert sent / (now_ns / 1e9) == pytest.approx(1000, rel=0.03)
    bucket.rate_bytes_s = None
    assert bucket.wait_s(10**9, now_ns) == 0.0


def test_the_bucket_lets_a_message_larger_than_its_burst_through_and_remembers_the_debt() -> None:
    bucket = TokenBucket(1000.0)
    assert bucket.wait_s(5000, 0) == 0.0
    assert bucket.wait_s(1, 0) == pytest.approx(4.001, abs=0.01)


def test_quantiles() -> None:
    latencies = Latencies(keep=100)
    assert latencies.quantile_ms(0.5) == 0.0
    for k in range(1000):
        latencies.add(k * 1_000_000)
    assert (latencies.quantile_ms(0.5), latencies.quantile_ms(0.99)) == (950.0, 999.0)
