import asyncio

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.model import ClockFit, DeviceEvent, Gap, Item, SampleBlock
from edgecap.source.item_queue import ItemQueue

FIT = ClockFit(0, 0, 0.0, 1000, 1, 1.0, 0, True)


def block(stream: str, index: int, n: int) -> SampleBlock:
    """Samples 1 ms apart: sample k is at k ms."""
    ticks = np.arange(index, index + n, dtype=np.int64) * 1000
    values = np.zeros((n, 1), np.int16)
    return SampleBlock(stream, index, ticks, values, np.array([n], np.int32), np.zeros(1, np.int64), FIT)


async def drain(queue: ItemQueue) -> list[Item]:
    queue.close()
    return [item async for item in queue]


def test_items_come_out_in_order() -> None:
    items: list[Item] = [
        block("a", 0, 5),
        DeviceEvent("d", "log", 1),
        Gap("a", 0, 1, 1, "line"),
        block("b", 0, 2),
    ]

    async def run() -> list[Item]:
        queue = ItemQueue(4)
        for item in items:
            queue.put(item)
        return await drain(queue)

    assert asyncio.run(run()) == items


def test_a_reader_that_waits_is_woken() -> None:
    async def run() -> list[Item]:
        queue, got = ItemQueue(4), []

        async def read() -> None:
            got.extend([item async for item in queue])

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        queue.put(DeviceEvent("d", "log", 1))
        await asyncio.sleep(0)
        queue.close()
        await task
        return got

    assert len(asyncio.run(run())) == 1


def test_what_was_dropped_becomes_a_gap_between_its_neighbours() -> None:
    async def run() -> list[Item]:
        queue = ItemQueue(2)
        for k in range(5):
            queue.put(block("a", 10 * k, 10))
        assert len(queue) == 2
        assert queue.dropped_blocks == 3
        return await drain(queue)

    gap, *rest = asyncio.run(run())
    assert gap == Gap("a", 0, 30_000_000, 30, "queue")
    assert [b.index for b in rest if isinstance(b, SampleBlock)] == [30, 40]


def test_events_give_way_only_when_no_block_is_left() -> None:
    async def run() -> list[Item]:
        queue = ItemQueue(2)
        queue.put(block("a", 0, 10))
        for t_ns in range(3):
            queue.put(DeviceEvent("d", "log", t_ns))
        assert (queue.dropped_blocks, queue.dropped_events) == (1, 1)
        return await drain(queue)

    found = asyncio.run(run())
    assert [getattr(i, "t_ns", i) for i in found] == [1, 2, Gap("a", 0, 9_000_000, 10, "queue")]


def test_no_gap_is_forgotten_when_nothing_else_is_left_to_give_way() -> None:
    async def run() -> list[Item]:
        queue = ItemQueue(2)
        queue.put(DeviceEvent("d", "stopped", 0))
        for k in range(3):
            queue.put(Gap("a", 10 * k, 10 * k + 5, 2, "line"))
        queue.put(Gap("b", 0, 5, -1, "unplugged"))
        return await drain(queue)

    found = asyncio.run(run())
    assert [i for i in found if isinstance(i, Gap)] == [
        Gap("a", 0, 25, 6, "queue"),
        Gap("b", 0, 5, -1, "unplugged"),
    ]
    assert [i.kind for i in found if isinstance(i, DeviceEvent)] == ["stopped"], "somebody waits for it"


def test_a_stated_gap_among_dropped_blocks_becomes_part_of_theirs() -> None:
    async def run() -> list[Item]:
        queue = ItemQueue(3)
        queue.put(block("a", 0, 10))
        queue.put(Gap("a", 9_000_000, 20_000_000, 10, "line"))
        queue.put(block("a", 20, 10))
        queue.put(DeviceEvent("d", "log", 1))
        queue.put(DeviceEvent("d", "log", 2))
        queue.put(block("a", 30, 10))
        return await drain(queue)

    found = [i for i in asyncio.run(run()) if not isinstance(i, DeviceEvent)]
    assert found[0] == Gap("a", 0, 30_000_000, 30, "queue")
    assert [type(i).__name__ for i in found] == ["Gap", "SampleBlock"]


def test_gaps_come_before_the_end_of_a_recording() -> None:
    async def run() -> list[Item]:
        queue = ItemQueue(1)
        queue.put(block("a", 0, 10))
        queue.put(DeviceEvent("d", "stopped", 5))
        return await drain(queue)

    assert [type(i).__name__ for i in asyncio.run(run())] == ["Gap", "DeviceEvent"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.booleans()), max_size=40),
    st.integers(1, 6),
)
def test_received_and_lost_always_add_up(puts: list[tuple[str, int, bool]], size: int) -> None:
    """Each entry: stream, samples, and whether the reader takes an item afterwards."""

    async def run() -> None:
        queue, next_index, got = ItemQueue(size), {"a": 0, "b": 0}, []
        reader = aiter(queue)
        for stream, n, take in puts:
            queue.put(block(stream, next_index[stream], n))
            next_index[stream] += n
            assert len(queue) <= size
            if take:
                got.append(await anext(reader))
        queue.close()
        got += [item async for item in reader]
        for stream, total in next_index.items():
            position = t_ns = 0
            for item in got:
                if item.stream != stream:
                    continue
                if isinstance(item, Gap):
                    assert t_ns <= item.t0_ns <= item.t1_ns
                    position, t_ns = position + item.lost, item.t1_ns
                else:
                    assert item.index == position
                    position += len(item.ticks)
            assert position == total

    asyncio.run(run())
