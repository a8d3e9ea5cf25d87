"""How late the loop is, measured by a timer that ends with its task."""

from __future__ import annotations

import asyncio
import contextlib
import time

from edgecap.daemon.health import LoopLag


def test_what_blocks_the_loop_is_measured_until_cancelled() -> None:
    async def body() -> None:
        lag = LoopLag()
        assert lag.quantiles_ms() == {}
        task = asyncio.create_task(lag.run())
        async with asyncio.timeout(30):
            while not lag.quantiles_ms():
                await asyncio.sleep(0.001)
            time.sleep(0.15)  # noqa: ASYNC251 - this is what is to be found
            while lag.quantiles_ms()["loop_lag_max_ms"] < 120:
                await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        measured = len(lag._lags_ns)
        await asyncio.sleep(0.05)
        assert len(lag._lags_ns) == measured, "it goes on measuring"

    asyncio.run(body())
