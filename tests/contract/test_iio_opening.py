"""IIO devices that cannot be opened: every refusal says why, in one line with the fix."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecap.errors import SourceError
from edgecap.source import iio_device
from edgecap.source.iio_device import Wanted
from tests.contract.iio_taker import opened, run, source
from tests.iio_tree import IioTree, iio_tree


async def refused(tree: IioTree, wanted: Wanted | None = None) -> str:
    with pytest.raises(SourceError) as found:
        async with source(tree, wanted).open():
            pass
    assert "\n" not in str(found.value)
    assert found.value.fix
    return str(found.value)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted("lsm6dsv"), r"no IIO device 'lsm6dsv'; there are: icm42688 \(iio:device0\).*dtoverlay"),
        (Wanted("icm42688", channels=("accel_x", "gyro_w")), "no channel 'gyro_w'; it has accel_x, "),
        (Wanted("icm42688", attributes={"in_accel_scael": "1"}), "in_accel_scael cannot be set.*not have it"),
        (Wanted("icm42688", attributes={"../evil": "1"}), "'../evil' is no attribute"),
        (Wanted("icm42688", trigger="hrtimer0"), "trigger/current_trigger cannot be set to 'hrtimer0'"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path, wanted: Wanted, says: str) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            assert re.search(says, await refused(tree, wanted))

    run(scenario)


def refusing(monkeypatch: pytest.MonkeyPatch, path: str, number: int) -> None:
    """The kernel's answer, at the system call, where a file cannot give it."""
    real = os.open

    def fake(target: Any, flags: int, *args: Any, **more: Any) -> int:
        if str(target).endswith(path) and (flags & os.O_WRONLY or "dev/" in str(target)):
            raise OSError(number, os.strerror(number))
        return real(target, flags, *args, **more)

    monkeypatch.setattr(iio_device.os, "open", fake)


@pytest.mark.parametrize(
    ("path", "number", "says"),
    [
        ("dev/iio:device0", errno.EBUSY, "another program is reading it; stop the program"),
        ("dev/iio:device0", errno.EACCES, "Permission denied; install systemd/udev/70-edgecap.rules"),
        ("dev/iio:device0", errno.ENOENT, "No such file or directory; the driver has no buffer"),
        ("buffer/enable", errno.EACCES, "buffer/enable cannot be set to '0': Permission denied; install"),
        ("scan_elements/in_accel_x_en", errno.EBUSY, "_en cannot be set to '1': the buffer is in use"),
        ("current_timestamp_clock", errno.EINVAL, "current_timestamp_clock cannot be set"),
        ("sampling_frequency", errno.EINVAL, "cannot sample at 100 Hz; it offers 12.5 50 100"),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_is_named_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, number: int, says: str
) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            refusing(monkeypatch, path, number)
            assert says in await refused(tree, Wanted("icm42688", 100.0))

    run(scenario)


def test_a_capture_that_cannot_be_enabled_names_the_triggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            (tree.sys_root / "trigger0").mkdir()
            (tree.sys_root / "trigger0" / "name").write_text("icm42688-dev0\n")
            async with opened(tree) as taker:
                refusing(monkeypatch, "buffer/enable", errno.EINVAL)
                with pytest.raises(SourceError, match=r"needs a `trigger` \(there are: icm42688-dev0\)"):
                    await taker.feed.start()
                monkeypatch.undo()
                await taker.feed.start()
                await taker.feed.stop()

    run(scenario)


def test_no_iio_at_all_and_two_of_one_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            tree = stack.enter_context(iio_tree(tmp_path))
            twin = stack.enter_context(iio_tree(tmp_path, number=1))
            assert "2 IIO devices are called 'icm42688'; set `device` to one of iio:device0, iio:device1" in (
                await refused(tree)
            )
            twin.write("label", "head")
            async with opened(tree, Wanted("head")) as taker:
                assert taker.feed.info[0].channels[0].name == "accel_x"
            async with opened(tree, Wanted("iio:device0")):
                pass
            tree.sys_root.rename(tmp_path / "gone")
            assert "no IIO devices" in await refused(tree)
            assert "dtoverlay" in await refused(tree)
            tree.sys_root.mkdir()
            assert "the kernel has found no IIO device; enable the sensor's overlay" in await refused(tree)

    run(scenario)


ATTRIBUTES = (
    "name", "current_timestamp_clock", "sampling_frequency", "in_accel_scale", "in_temp_offset",
    "scan_elements/in_accel_x_type", "scan_elements/in_accel_x_index", "scan_elements/in_timestamp_type",
    "buffer/hwfifo_watermark_max",
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(ATTRIBUTES),
    st.binary(max_size=60) | st.sampled_from([b"nan", b"inf", b"-1", b"0", b"1e400", b"le:s0/0", b"9" * 50]),
)
def test_hostile_attributes_are_refused_in_one_line_or_harmless(
    tmp_path: Path, attribute: str, content: bytes
) -> None:
    async def scenario() -> None:
        root = tmp_path / os.urandom(8).hex()
        with iio_tree(root) as tree:
            (tree.path / attribute).write_bytes(content)
            try:
                async with source(tree, Wanted("iio:device0")).open() as feed:
                    (info,) = feed.info
                    assert info.rate_hz_nominal > 0
                    assert all(np.isfinite([c.scale, c.offset]).all() and c.scale for c in info.channels)
            except SourceError as error:
                assert error.fix

    run(scenario)
