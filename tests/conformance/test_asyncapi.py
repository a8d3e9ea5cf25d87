"""docs/asyncapi.yaml says what the program does: topics, QoS, retain, and the shape of every message.

`python -m tests.conformance.test_asyncapi` rewrites the generated schemas at the end of the file.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import yaml

from edgecap import topics
from edgecap.codec.chunk import ChunkHeader
from edgecap.codec.receipt import Receipt, decode_receipt, encode_receipts
from edgecap.daemon import blinking, reporting, rig
from edgecap.daemon.recording import SESSION_EVENTS
from edgecap.daemon.reporting import Desired
from edgecap.source.camera_feed import CameraStatistics
from edgecap.source.iio import IioStatistics
from edgecap.source.intake import SerialStatistics
from edgecap.status import OFFLINE, Command, CommandResult, Commands, RigStatus
from edgecap.uplink import uplink
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
    for name, schema in plain.items():
        describe(struct_called(name), schema)
    return {name: in_its_dialect(schema) for name, schema in plain.items()}


def struct_called(name: str) -> type[msgspec.Struct]:
    """The program's struct of which msgspec made a schema."""
    (found,) = {
        struct
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("edgecap.")
        and isinstance(struct := getattr(module, name, None), type)
        and issubclass(struct, msgspec.Struct)
        and struct.__name__ == name
    }
    return found


def describe(struct: type[msgspec.Struct], schema: dict[str, Any]) -> None:
    """Put what the source says of each field, below it, into its schema; name the parts of arrays."""
    body = ast.parse(inspect.getsource(struct)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, text in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(text.value, ast.Constant)
            texts[field.target.id] = " ".join(str(text.value.value).split())
    fields = [field.encode_name for field in msgspec.structs.fields(struct)]
    for name, part in zip(fields, schema.get("prefixItems", ()), strict=False):
        part["title"] = name
    for name, part in schema.get("properties", {}).items():
        if name in texts and "$ref" not in part:  # beside a reference nothing else is read
            part["description"] = texts[name]


def in_its_dialect(node: Any) -> Any:
    """A schema of msgspec's, of the newest JSON Schema and for JSON, as AsyncAPI 3 reads it: draft 07, in
    which `items` is what `prefixItems` became, and without base64, which msgpack has no need of.
    """
    if isinstance(node, list):
        return [in_its_dialect(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: in_its_dialect(value) for key, value in node.items() if key != "contentEncoding"}
    if "contentEncoding" in node:
        found["format"] = "binary"
    if "prefixItems" in found:
        found["items"] = found.pop("prefixItems")
    return found


def validator(document: dict[str, Any], ref: str) -> jsonschema.Draft7Validator:
    """For whatever the reference names."""
    return jsonschema.Draft7Validator({"$ref": ref, "components": document["components"]})


def test_no_schema_says_what_its_dialect_does_not_know() -> None:
    """A validator ignores unknown words, and so lets everything through, or (`items: false`) nothing."""

    def walk(node: Any, where: str) -> None:
        if isinstance(node, list):
            for part in node:
                walk(part, where)
        if not isinstance(node, dict):
            return
        assert not {"prefixItems", "contentEncoding", "$defs", "unevaluatedProperties"} & node.keys(), where
        for key, value in node.items():
            assert key != "items" or not isinstance(value, bool), where
            walk(value, f"{where}/{key}")

    schemas = load()["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema.Draft7Validator.check_schema(schema)
        walk(schema, name)


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


def test_what_a_command_may_say_is_described() -> None:
    """By the names that the program looks for in `args`."""
    told = load()["channels"]["cmd"]["description"]
    for module in (reporting, blinking):
        for name in re.findall(r'args\.get\("(\w+)"', inspect.getsource(module)):
            assert f"`{name}`" in told, name
    for cmd in get_args(Commands):
        assert f"`{cmd}`" in told, cmd


def test_kinds_of_events_are_described() -> None:
    told = load()["components"]["schemas"]["Event"]["properties"]["kind"]["description"]
    kinds = set(SESSION_EVENTS)
    for module in (reporting, rig, uplink):
        kinds.update(re.findall(r'say\(\s*"([a-z-]+)"', inspect.getsource(module)))
    assert len(kinds) > 10
    assert kinds <= set(re.findall(r"`([a-z-]+)`", told))


def test_hand_written_schemas_fit_real_messages() -> None:
    schemas = load()["components"]["schemas"]
    assert msgspec.json.decode(OFFLINE) == {"state": schemas["Offline"]["properties"]["state"]["const"]}
    chunk = make_chunks(1)[0]
    parts = msgspec.msgpack.decode(chunk.packed)
    assert len(parts) == len(schemas["ChunkEnvelope"]["items"])
    assert parts[0] == schemas["ChunkEnvelope"]["items"][0]["const"]
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
