"""A light that the kernel blinks, over a folder that looks like one of /sys/class/leds."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from edgecap.errors import SourceError
from edgecap.session.machine import LEDS, Led
from edgecap.source.gpio import GpioPanel
from edgecap.source.kernel_light import AGAIN_S, FAULT_TIMES, LAPSE_S, KernelLight, in_tuples
from edgecap.source.steps import steps_of
from tests.waiting import until

PAGE, MOST_TUPLES = 4096, 1024
"""What one write to sysfs, and the kernel's trigger, can take."""


def led_folder(leds: Path, trigger: str = "[none] timer pattern") -> Path:
    folder = leds / "edgecap"
    folder.mkdir(parents=True)
    (folder / "max_brightness").write_text("1\n")
    (folder / "trigger").write_text(trigger)
    for name in ("pattern", "repeat", "brightness"):
        (folder / name).write_text("")
    return folder


def played(text: str) -> list[tuple[int, int]]:
    """As ledtrig-pattern plays it: brightness, and for how many ms; a jump where two of 0 ms say so."""
    words = [int(w) for w in text.split()]
    tuples = list(zip(words[::2], words[1::2], strict=True))
    assert len(tuples) <= MOST_TUPLES
    assert len(text) < PAGE
    for (level, ms), (same, zero) in zip(tuples[::2], tuples[1::2], strict=True):
        assert (ms > 0, same, zero) == (True, level, 0), "it would fade"
    return tuples[::2]


@pytest.mark.parametrize("led", LEDS.values(), ids=lambda led: led.name)
@pytest.mark.parametrize("full", [1, 255])
def test_each_light_is_itself_first_then_a_fault_then_dark(led: Led, full: int) -> None:
    steps = steps_of(led)
    shown = played(in_tuples(steps, full))
    assert {level for level, _ in shown} == {0, full}
    period_ms = sum(round((s.seconds or 0) * 1e3) for s in steps)
    fault = steps_of(LEDS["fault"])
    tail = [(full * s.on, round((s.seconds or 0) * 1e3)) for s in fault] * FAULT_TIMES
    assert shown[-len(tail) :] == tail
    assert shown[-1][0] == 0, "the last brightness stays"
    own = shown[: -len(tail)]
    lasts_s = sum(ms for _, ms in own) / 1e3
    anew_s = max(AGAIN_S, period_ms / 1e3)
    assert anew_s + LAPSE_S <= lasts_s <= anew_s + LAPSE_S + period_ms / 1e3
    if period_ms:
        assert own == [(full * s.on, round((s.seconds or 0) * 1e3)) for s in steps] * (
            round(lasts_s * 1e3) // period_ms
        )


def test_a_program_that_lives_writes_it_anew_and_one_that_ends_leaves_it_dark(tmp_path: Path) -> None:
    folder = led_folder(tmp_path)

    async def run() -> None:
        light = KernelLight("edgecap", tmp_path)
        with GpioPanel(light=light, on_edge=lambda *_: None).open() as panel:
            assert (folder / "trigger").read_text() == "pattern"
            panel.show(LEDS["recording"])
            first = (folder / "pattern").read_text()
            assert (folder / "repeat").read_text() == "1", "over and over it would never lapse"
            for name in ("pattern", "repeat"):
                (folder / name).write_text("")
            await until(lambda: (folder / "repeat").read_text() == "1")
            assert (folder / "pattern").read_text() == first
            panel.show(LEDS["fault"])
            assert (folder / "pattern").read_text() != first

    asyncio.run(run())
    assert played((folder / "pattern").read_text()) == [(0, 1000)]
    assert (folder / "brightness").read_text() == "", "a 0 there would dismiss the trigger"


def test_a_trigger_that_is_chosen_is_left_alone(tmp_path: Path) -> None:
    """Choosing it again would make its files anew, without the rights that the udev rule gave them."""
    folder = led_folder(tmp_path, "none timer [pattern]")
    with KernelLight("edgecap", tmp_path).open():
        assert (folder / "trigger").read_text() == "none timer [pattern]"


def test_an_led_that_is_not_there_or_has_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        SourceError, match=r"LED 'nose' cannot be used: .*nose: No such file.*dtoverlay=gpio-led"
    ):
        KernelLight("nose", tmp_path).open().__enter__()
    folder = led_folder(tmp_path)

    async def run() -> None:
        with KernelLight("edgecap", tmp_path).open() as light:
            (folder / "pattern").unlink()
            (folder / "pattern").mkdir()
            for _ in range(3):
                light.show(LEDS["idle"])  # recording goes on

    asyncio.run(run())
    assert len([r for r in caplog.records if "cannot be switched" in r.message]) == 1


def test_a_kernel_without_the_trigger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    led_folder(tmp_path)

    def refuse(path: Path, text: str) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")  # what sysfs says to a trigger that is not loaded

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(SourceError, match="Invalid argument; load the kernel's pattern trigger"):
        KernelLight("edgecap", tmp_path).open().__enter__()
