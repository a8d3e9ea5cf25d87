"""What was withdrawn outlives the daemon, and what it cannot tell it takes for withdrawn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgecap.config import MAX_USES
from edgecap.daemon.terms import NAME, Terms
from edgecap.errors import SessionError
from edgecap.session.manifest import Provenance

WHO = Provenance("fold a towel", "p-1", "c-1", ("training",))


def test_withdrawn_means_no_session_also_after_a_restart(tmp_path: Path) -> None:
    terms = Terms(WHO, tmp_path)
    terms.require()
    assert asyncio.run(terms.withdraw(["c-0", " c-1 ", ""]))
    assert not asyncio.run(terms.withdraw(["c-1", "c-0"])), "nothing new"
    for now in (terms, Terms(WHO, tmp_path)):
        assert not now.allow
        assert "consent 'c-1' was withdrawn; set another" in now.problems()["consent"]
        with pytest.raises(SessionError, match="refused start: consent 'c-1' was withdrawn"):
            now.require()
    terms.provide(consent="c-2")
    terms.require()
    assert asyncio.run(terms.withdraw(["p-1"]))  # a worker withdraws all
    with pytest.raises(SessionError, match="operator 'p-1' was withdrawn"):
        terms.require()
    assert asyncio.run(terms.withdraw([]))  # noted by mistake
    terms.require()
    assert Terms(WHO, tmp_path).allow


@pytest.mark.parametrize("data", [b"", b"\xff", b'["c-9"', b'{"c": 1}', b"[1]"])
def test_a_damaged_note_allows_nothing_until_it_is_said_again(tmp_path: Path, data: bytes) -> None:
    (tmp_path / NAME).write_bytes(data)
    terms = Terms(WHO, tmp_path)
    assert not terms.allow
    with pytest.raises(
        SessionError, match=r"withdrawn.json.* cannot be read: .*send `withdrawn` in `desired`"
    ):
        terms.require()
    assert asyncio.run(terms.withdraw([]))
    assert Terms(WHO, tmp_path).allow


def test_it_holds_even_where_it_cannot_be_written(tmp_path: Path) -> None:
    terms = Terms(WHO, tmp_path / "away")
    with pytest.raises(SessionError, match=r"known until the daemon ends: .*withdrawn.json: No such file"):
        asyncio.run(terms.withdraw(["c-1"]))
    assert not terms.allow


def test_what_one_consent_allows_is_not_said_of_another(tmp_path: Path) -> None:
    terms = Terms(WHO, tmp_path)
    terms.provide(task="stack cups", consent="c-1")
    assert terms.provenance.consent_scope == ("training",)
    terms.provide(consent="c-2")
    assert terms.provenance.consent_scope == ()
    terms.provide(consent="c-3", consent_scope=("training", "publication"))
    assert terms.provenance.consent_scope == ("training", "publication")
    for uses in (("x",) * (MAX_USES + 1), ("",), ("x" * 201,)):
        with pytest.raises(SessionError, match="refused consent_scope"):
            terms.provide(consent_scope=uses)
