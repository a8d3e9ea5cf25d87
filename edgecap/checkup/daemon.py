"""Whether the rig's daemon runs, and what it says of itself."""

from __future__ import annotations

from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Finding, fail, none, ok
from edgecap.daemon.neighbour import ask_neighbour
from edgecap.errors import EdgecapError
from edgecap.spool.card import Card


async def check_daemon(exam: Exam) -> list[Finding]:
    """Find the daemon by the lock on its spool, and ask it."""
    try:
        exam.daemon = Card(exam.spool_dir).holder()
    except EdgecapError:
        exam.daemon = None  # the spool's own row tells what is the matter with it
    told = await ask_neighbour(exam.config.spool.dir)
    if told is None:
        if exam.daemon is None:
            return [none("daemon", "it does not run; everything is tried directly")]
        told = "the daemon is of another version of edgecap, or in another network namespace"
    exam.daemon = exam.daemon or ""
    who = f"process {exam.daemon}" if exam.daemon else "it"
    if isinstance(told, str):
        exam.untold = told
        return [none("daemon", f"{who} runs and holds the devices; {told}")]
    exam.told = told
    if told.state == "fault":
        return [fail("daemon", f"{who} is in fault: {told.fault}", "remove the cause; it recovers by itself")]
    doing = f"{who} runs ({told.state}) and holds the devices; what it tells is taken from it"
    return [ok("daemon", doing, state=told.state, led=told.led)]
