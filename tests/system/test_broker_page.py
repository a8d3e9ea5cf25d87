"""The broker of docs/BROKER.md, as it stands there: who may do what, and which cipher is spoken."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from edgecap import topics
from edgecap.mqtt import Broker, PublishRefusedError, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker, TlsFiles
from tests.system.certificates import Certificates, make_certificates

PAGE = Path(__file__).parents[2] / "docs" / "BROKER.md"
OURS = ("listener", "certfile", "keyfile", "cafile", "acl_file", "allow_anonymous")
"""Lines that name this machine's files, or which the loopback broker writes itself."""
ASSUMED = ("require_certificate true", "use_identity_as_username true")
RIG, OTHER = "rig-01", "rig-02"
WRITES = (topics.STATUS, topics.TELEMETRY, topics.EVENT, topics.CMD_RESULT)
READS = (topics.RECEIPT, topics.CMD, topics.DESIRED)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificates]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make_certificates(folder / name, client=name) for name in (RIG, "ingest", "operator")}


def test_each_may_do_its_part_and_no_more(tmp_path: Path, people: dict[str, Certificates]) -> None:
    config, acl = (part.split("```")[0] for part in PAGE.read_text().split("```\n")[1::2])
    lines = [line for line in config.splitlines() if not line.startswith(OURS)]
    assert set(ASSUMED) <= set(lines)
    options = "\n".join(line for line in lines if line not in ASSUMED)
    trusted = tmp_path / "ca.pem"
    trusted.write_text("".join(p.ca.read_text() for p in people.values()))
    server = people["ingest"]

    def as_(name: str, url: str) -> Broker:
        me = people[name]
        return parse_broker(url, ca_file=server.ca, cert_file=me.client_cert, key_file=me.client_key)

    async def refused(broker: Broker, *names: str) -> None:
        async with connect(broker, client_id="denied") as connection:
            for name in names:
                with pytest.raises(PublishRefusedError, match="not authorised"):
                    await connection.publish(name, b"", qos=1)

    async def body(url: str) -> None:
        rig, ingest, operator = (as_(name, url) for name in people)
        up = topics.topic("lab", RIG, topics.UP, "head-cam")
        hears = [topics.topic("lab", RIG, c) for c in READS]
        async with (
            connect(rig, client_id="rig", subscribe=hears) as at_rig,
            connect(ingest, client_id="in", subscribe=[topics.subscription(topics.UP)]) as at_ingest,
            connect(
                operator, client_id="op", subscribe=[topics.subscription(topics.CMD_RESULT)]
            ) as at_operator,
        ):
            tls = at_rig._client.socket
            assert isinstance(tls, ssl.SSLSocket)
            cipher = tls.cipher()
            assert cipher is not None
            assert "CHACHA20" in cipher[0]
            for channel in WRITES:
                await at_rig.publish(topics.topic("lab", RIG, channel), b"{}", qos=1)
            await at_rig.publish(up, bytes(112 * 1024), qos=1)
            await at_ingest.publish(hears[0], b"receipt", qos=1)
            await at_operator.publish(hears[1], b"cmd", qos=1)
            await at_operator.publish(hears[2], b"desired", qos=1)
            async with asyncio.timeout(60):
                assert len((await at_ingest.receive()).payload) == 112 * 1024
                assert {(await at_rig.receive()).payload for _ in READS} == {b"receipt", b"cmd", b"desired"}
                assert (await at_operator.receive()).payload == b"{}"
        others = [topics.topic("lab", OTHER, c) for c in (*WRITES, *READS)]
        await refused(rig, *others, *hears, topics.topic("elsewhere", RIG, topics.STATUS))
        await refused(ingest, topics.topic("lab", RIG, topics.CMD), up)
        await refused(operator, hears[0], up)

    with LoopbackBroker(
        tmp_path / "broker",
        tls=TlsFiles(server.server_cert, server.server_key, trusted),
        acl=acl,
        options=options,
    ) as running:
        asyncio.run(body(running.url))
