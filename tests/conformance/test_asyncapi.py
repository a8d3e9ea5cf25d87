"""docs/asyncapi.yaml says what the program does: topics, QoS, retain, and the shape of every message.

`python -m tests.conformance.test_asyncapi` rewrites the generated schemas at the end of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgecap import topics
from edgecap.codec.chunk import ChunkHeader
from edgecap.codec.receipt import Receipt, decode_receipt, encode_receipts
from edgecap.daemon.reporting import Desired
from edgecap.source.camera_feed import CameraStatistics
from edgecap.source.iio import IioStatistics
from edgecap.source.intake import SerialStatistics
from edgecap.status import OFFLINE, Command, CommandResult, RigStatus
from tests.system.delivery import make_chunks

FILE = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
MARK = "    # Below: generated from"
STRUCTS = (RigStatus, Command, CommandResult, Desired, Receipt, ChunkHeader)
STATISTICS = (SerialStatistics, CameraStatistics, IioStatistics)
"""What `devices` of a status holds."""


def load() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def generated() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(
        (*STRUCTS, *STATISTICS), ref_template="#/components/schemas/{name}"
    )
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schemas))
    return plain


def resolve(document: dict[str, Any], ref: str) -> Any:
    found: Any = document
    for part in ref.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return found


def test_every_channel_is_there_with_its_qos_retain_and_content_type() -> None:
    document = load()
    assert set(document["channels"]) == {channel.suffix for channel in topics.CHANNELS}
    operations = {o["channel"]["$ref"]: o["bindings"]["mqtt"] for o in document["operations"].values()}
    for channel in topics.CHANNELS:
        described = document["channels"][channel.suffix]
        stream = "{stream}" if channel is topics.UP else ""
        address = described["address"].replace("{site}", "lab").replace("{rig}", "rig-1")
        assert address.replace("{stream}", "cam") == topics.topic(
            "lab", "rig-1", channel, "cam" if stream else ""
        )
        binding = operations["#/channels/" + channel.suffix.replace("/", "~1")]
        assert (binding["qos"], binding["retain"]) == (channel.qos, channel.retain)
        for message in described["messages"].values():
            assert resolve(document, message["$ref"])["contentType"] == channel.content_type


def test_no_reference_dangles() -> None:
    document = load()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                resolve(document, node["$ref"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)


def test_schemas_are_those_of_the_program() -> None:
    schemas = load()["components"]["schemas"]
    wanted = generated()
    stale = [name for name in wanted if schemas.get(name) != wanted[name]]
    assert not stale, f"run `python -m tests.conformance.test_asyncapi`: {stale} have changed"


def test_hand_written_schemas_fit_real_messages() -> None:
    schemas = load()["components"]["schemas"]
    assert msgspec.json.decode(OFFLINE) == {"state": schemas["Offline"]["properties"]["state"]["const"]}
    chunk = make_chunks(1)[0]
    parts = msgspec.msgpack.decode(chunk.packed)
    assert len(parts) == len(schemas["ChunkEnvelope"]["prefixItems"])
    assert parts[0] == schemas["ChunkEnvelope"]["prefixItems"][0]["const"]
    header = msgspec.msgpack.decode(parts[1])
    assert set(schemas["ChunkHeader"]["required"]) <= set(header) <= set(schemas["ChunkHeader"]["properties"])
    (receipt,) = encode_receipts([chunk.id], worker="w", t_utc_ns=1)
    assert set(msgspec.msgpack.decode(receipt)) == set(schemas["Receipt"]["properties"])
    assert list(decode_receipt(receipt).ids()) == [chunk.id]


def main() -> None:
    head, mark, rest = FILE.read_text().partition(MARK)
    line = rest.splitlines()[0]
    body = yaml.safe_dump(generated(), sort_keys=False, width=110, allow_unicode=True)
    FILE.write_text(head + mark + line + "\n" + "".join(f"    {x}\n" for x in body.splitlines()))


if __name__ == "__main__":
    main()
