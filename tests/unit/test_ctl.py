"""What `edgecap ctl RIG status` says of room, in words that fit the number."""

from __future__ import annotations

import pytest

from edgecap.cli.ctl import _room
from edgecap.status import SpoolStatus

GB, MB = 1_000_000_000, 1_000_000


@pytest.mark.parametrize(
    ("free", "hours", "said"),
    [
        (57 * GB, 161.72, "56.5 GB, 162 h of recording at the rate last measured"),
        (57 * GB, None, "56.5 GB"),
        (2 * GB, 3.42, "1.5 GB, 3.4 h of recording at the rate last measured"),
        (522 * MB, 0.2, "22 MB, 12 min of recording at the rate last measured"),
        (499 * MB, 0.0, "none, 499 MB are free and 500 MB are kept in reserve: no session can start"),
    ],
)
def test_room_in_words(free: int, hours: float | None, said: str) -> None:
    assert _room(SpoolStatus(1, 1, free, 500 * MB, hours, 0.0)) == said
