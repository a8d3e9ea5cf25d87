"""`edgecap ctl blink`: command → daemon → board's light → events → the lag of a camera that saw it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from edgecap.daemon.blinking import LONGEST_S, SHORTEST_S, find_board, intervals_s, read_request
from edgecap.daemon.recording import Live, OpenSource
from edgecap.dataset.session import load_session
from edgecap.dataset.sync_led import RowFilm, Switching, lag_of_led
from edgecap.dataset.sync_sources import session_led
from edgecap.errors import SessionError
from edgecap.ingest.store import open_store
from edgecap.session.machine import LEDS
from edgecap.sim.firmware import motion_imu, read_light
from tests.calibration_events import MS, START_NS, film_of
from tests.system.site import Site
from tests.system.test_flow import ctl

SEED, SECONDS = 41, 12
LATE_NS = 7 * MS
WHITE = 0xFFFFFF


def seen_by_camera(pin: Switching) -> RowFilm:
    """Rows of a camera that sees the pin's light and stamps 7 ms late."""
    shift_ns = int(pin.t_ns[0]) - START_NS - 500 * MS
    rng = np.random.default_rng(SEED)
    film = film_of(rng, Switching(pin.t_ns - shift_ns, pin.on), exposure_ns=2 * MS, late_ns=LATE_NS)
    return RowFilm(film.t_ns + shift_ns, film.rows, film.line_ns, film.exposure_ns)


@pytest.mark.timeout(180)
def test_a_board_blinks_and_the_cameras_lag_is_found(tmp_path: Path) -> None:
    async def main() -> tuple[Switching, Switching, int]:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [motion_imu(rate_hz=100)])
            await site.start_ingest()
            await site.start_daemon()
            code, words = await ctl(site, "blink", "glove", "--seconds", "2")
            assert (code, "nothing is being recorded; start a session first" in words) == (1, True)
            assert (await ctl(site, "start"))[0] == 0
            await site.until_state("recording")  # told after the answer
            session = str(site.status["session"])
            code, words = await ctl(site, "blink", "glove", "--seconds", str(SECONDS), "--seed", str(SEED))
            n = len(list(intervals_s(SEED, SECONDS))) // 2
            assert (code, f"glove blinked {n} times, seed {SEED}" in words) == (0, True)
            # The light is the state's again.
            rgb = " ".join(str(level) for level in LEDS["recording"].rgb)
            async with asyncio.timeout(30):
                while not (await glove.command("led")).startswith(rgb):
                    await asyncio.sleep(0.02)
            assert (await ctl(site, "stop"))[0] == 0
            report = await site.until_complete(session)
            assert report.outcome == "complete"
            await glove.totals()  # flushes
            told, _ = session_led(load_session(open_store(str(site.store)), site.key(session)), "glove")
            light = read_light(site.out / "truth-glove.bin")
            edges = np.flatnonzero((light["index"][1:] == WHITE) != (light["index"][:-1] == WHITE)) + 1
            pin = Switching(light["raw_ns"][edges].astype(np.int64), light["index"][edges] == WHITE)
            return told, pin, n

    told, pin, n = asyncio.run(main())
    assert told.on.tolist() == pin.on.tolist() == [True, False] * n
    # A stamp is the board's own; the daemon's clock for it is bound to some 100 µs on a busy machine.
    assert np.abs(told.t_ns - pin.t_ns).max() < 2 * MS
    found = lag_of_led(seen_by_camera(pin), told)
    assert abs(found.lag_ns - LATE_NS) < MS


def test_what_cannot_blink_is_refused_in_one_line() -> None:
    class Lit:
        def set_led(self, rgb: tuple[int, int, int]) -> None: ...

    boards = [OpenSource("left-hand", Lit(), Live()), OpenSource("head-cam", object(), Live())]
    assert find_board(boards, "left-hand") is boards[0]
    for name, says in (
        ("left-hnad", "did you mean left-hand?"),
        ("head-cam", "no board 'head-cam' with a light is open; boards here: left-hand"),
        ("", "boards here: left-hand"),
    ):
        with pytest.raises(SessionError) as refused:
            find_board(boards, name)
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
    assert read_request({}) == (0, 20.0)
    assert read_request({"seconds": "2.5", "seed": "7"}) == (7, 2.5)
    for seconds in ("0", "900", "nan", "soon", "-3"):
        with pytest.raises(SessionError, match=r"is no number of seconds from 1 to 120$"):
            read_request({"seconds": seconds})
    for seed in ("-1", "x", "1.5", "9" * 19):
        with pytest.raises(SessionError, match="is no whole number"):
            read_request({"seed": seed})


def test_one_light_is_not_borrowed_twice_and_shows_the_latest_state_afterwards() -> None:
    shown: list[tuple[object, ...]] = []

    class Lit:
        def set_led(self, *light: object) -> None:
            shown.append(light)

    board = OpenSource("glove", Lit(), Live())
    board.show(LEDS["recording"])
    with board.borrowed_light() as show:
        show((255, 255, 255))
        board.show(LEDS["draining"])  # the session ends meanwhile
        with pytest.raises(SessionError, match="is blinking already"), board.borrowed_light():
            pass
    assert [light[0] for light in shown] == [LEDS["recording"].rgb, (255, 255, 255), LEDS["draining"].rgb]


def test_a_seed_gives_its_pattern_and_no_other() -> None:
    patterns = [list(intervals_s(seed, 20)) for seed in range(20)]
    assert patterns == [list(intervals_s(seed, 20)) for seed in range(20)]
    assert len({tuple(p) for p in patterns}) == 20
    for pattern in patterns:
        assert 20 <= sum(pattern) < 20 + 2 * LONGEST_S
        assert min(pattern) >= SHORTEST_S
        assert max(pattern) <= LONGEST_S
        assert len(pattern) % 2 == 0  # it ends dark
        assert np.std(pattern) > 0.1  # irregular: no lag by a whole beat fits as well
