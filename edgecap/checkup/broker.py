"""The broker: reached, logged in, allowed to speak and to listen; and whether an ingest answers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time

import msgspec

from edgecap import topics
from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Finding, fail, failed, none, ok
from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.receipt import decode_receipt
from edgecap.codec.records import seal_records
from edgecap.errors import BrokerError, EdgecapError
from edgecap.model import SESSION_STREAM, ClockPair
from edgecap.mqtt import Connection, connect
from edgecap.status import CommandResult

NO_SUBSCRIBERS = 0x10
"""MQTT 5: the broker took it, and nobody is subscribed to it."""
ECHO_S = 3.0
RECEIPT_S = 10.0
TRIAL = "doctor-1"
"""A session that only says that it was tried: the same bytes each time, so that a store keeps one of it."""


async def check_broker(exam: Exam) -> list[Finding]:
    """Everything that the daemon does with a broker, once."""
    broker = exam.broker
    if broker is None:
        return [none("broker", "none is configured: recordings stay on this disk")]
    if isinstance(broker, EdgecapError):
        return [failed("broker", broker)]
    exam.tell(f"connecting to {broker.name}")
    site, rig = exam.config.site, exam.config.rig
    inputs = [topics.topic(site, rig, c) for c in (topics.RECEIPT, topics.CMD, topics.DESIRED)]
    name = f"edgecap-doctor-{secrets.token_hex(4)}"
    t0 = time.perf_counter()
    findings: list[Finding] = []
    try:
        async with connect(broker, client_id=name) as connection:
            ms = (time.perf_counter() - t0) * 1e3
            findings.append(
                ok(
                    "broker",
                    f"{broker.url} lets us in, MQTT {connection.mqtt_version}, in {ms:.0f} ms",
                    connect_ms=round(ms, 1),
                    version=connection.mqtt_version,
                )
            )
            findings.append(await _topics(exam, connection, inputs))
            findings.append(await _delivery(exam, connection))
    except EdgecapError as error:
        what = "topics" if findings else "broker"
        findings.append(failed(what, error))
    return findings


async def _topics(exam: Exam, connection: Connection, inputs: list[str]) -> Finding:
    """Subscribe to what a rig hears, and hear back what it says."""
    site, rig = exam.config.site, exam.config.rig
    answers = topics.topic(site, rig, topics.CMD_RESULT)
    try:
        await connection.subscribe(inputs)
    except BrokerError as error:
        return failed("topics", error)
    with contextlib.suppress(BrokerError):  # a rig has no need to read its own answers
        await connection.subscribe([answers])
    mark = f"doctor-{secrets.token_hex(8)}"
    payload = msgspec.json.encode(CommandResult(mark, True, "edgecap doctor tries this topic"))
    t0 = time.perf_counter()
    try:
        await connection.publish(answers, payload, qos=1)
    except BrokerError as error:
        return failed("topics", error)
    try:
        async with asyncio.timeout(ECHO_S):
            while mark.encode() not in (await connection.receive()).payload:
                pass
    except TimeoutError:
        if connection.mqtt_version == "5":
            text = f"the broker takes what is published to {answers}; this user may not read it, nor need it"
            return ok("topics", text)
        # Under 3.1.1 a broker acknowledges even what it throws away.
        fix = "allow this user to write (and, for this check, to read) the rig's topics: docs/asyncapi.yaml"
        return fail("topics", f"what was published to {answers} did not come back within {ECHO_S:g} s", fix)
    ms = (time.perf_counter() - t0) * 1e3
    return ok("topics", f"published to {answers} and heard it after {ms:.0f} ms", echo_ms=round(ms, 1))


async def _delivery(exam: Exam, connection: Connection) -> Finding:
    """Deliver a trial session and wait for ingest's receipt."""
    site, rig = exam.config.site, exam.config.rig
    chunks = trial_session(site, rig)
    wanted = {c.id for c in chunks}
    exam.tell("waiting for ingest's receipt")
    t0 = time.perf_counter()
    try:
        codes = [
            await connection.publish(topics.topic(site, rig, topics.UP, SESSION_STREAM), c.packed, qos=1)
            for c in chunks
        ]
    except BrokerError as error:
        return failed("delivery", error)
    if connection.mqtt_version == "5" and all(code == NO_SUBSCRIBERS for code in codes):
        return none("delivery", "nobody is subscribed to this rig's chunks: no ingest runs at this broker")
    try:
        async with asyncio.timeout(RECEIPT_S):
            while wanted:
                message = await connection.receive()
                if topics.parse(message.topic).suffix == topics.RECEIPT.suffix:
                    wanted -= set(decode_receipt(message.payload).ids())
    except TimeoutError:
        if connection.mqtt_version != "5":
            return none("delivery", f"no receipt within {RECEIPT_S:g} s; perhaps no ingest runs")
        fix = "look into the log of `edgecap ingest`: it hears this rig and gives no receipt"
        return fail("delivery", f"no receipt for a trial session within {RECEIPT_S:g} s", fix)
    ms = (time.perf_counter() - t0) * 1e3
    text = f"ingest stored a trial session and said so after {ms:.0f} ms"
    return ok("delivery", text, receipt_ms=round(ms, 1))


def trial_session(site: str, rig: str) -> list[Chunk]:
    """A whole session without data, marked as discarded, whose bytes never change."""
    chain = StreamChain(site=site, rig=rig, boot=TRIAL, session=TRIAL, stream=SESSION_STREAM)
    # Its times are zero by definition, so that no ledger calls this rig's clock doubtful for it.
    pair = ClockPair(0, 0, 0, 0, 0, True, 0, 0, 0.0)
    opening = {
        "type": "open", "t_ns": 0, "v": 1, "site": site, "rig": rig, "boot": TRIAL, "session": TRIAL,
        "task": "edgecap doctor: is delivery possible?", "operator": "-", "consent": "-", "utc_ns": 0,
        "utc_trusted": True, "clock": msgspec.to_builtins(pair), "streams": [], "calibration": {},
        "versions": {}, "config": {},
    }  # fmt: skip
    closing = {"type": "close", "t_ns": 1, "outcome": "discarded", "reason": "a trial", "streams": {}}
    return [seal_records(chain, [record]) for record in (opening, closing)]
