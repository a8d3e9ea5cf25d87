"""How commands name a rig: RIG, or SITE/RIG where two sites have a rig of that name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecap.errors import SessionError
from edgecap.topics import check_name

if TYPE_CHECKING:
    from edgecap.fleet.roster import RigRow


def split_rig(text: str) -> tuple[str, str]:
    """Site and rig; the site is `+`, which is any, where none is named. Raises `NameRefused`."""
    site, slash, rig = text.rpartition("/")
    if slash:
        check_name("site", site)
    check_name("rig", rig)
    return site if slash else "+", rig


def unknown_rig(text: str, rows: Sequence[RigRow]) -> SessionError:
    """No such rig has spoken: which one may be meant, or which there are."""
    near = difflib.get_close_matches(text.rpartition("/")[2], [r.rig for r in rows], 1)
    known = ", ".join(f"{r.site}/{r.rig}" for r in rows[:10]) + (", …" if len(rows) > 10 else "")
    hint = f"did you mean {near[0]}?" if near else f"known here: {known or 'none'}"
    return SessionError(f"no rig {text} has spoken to this broker", fix=hint)
