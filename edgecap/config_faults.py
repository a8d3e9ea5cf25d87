"""What is wrong with a configuration: the key by name, what it says, and what it may say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import msgspec

from edgecap.errors import ConfigError
from edgecap.model import PREVIEW_SUFFIX

if TYPE_CHECKING:
    from edgecap.config import Config

Table = type[msgspec.Struct]
_SCHEMA = "see `edgecap config schema`"


def refuse_unknown(tree: dict[str, Any], table: Table, where: str, at: str = "") -> None:
    """Walk the tree along the declared tables, naming the first key that none of them has.

    Raises:
        ConfigError: names the key, and the nearest valid one or all that there are.
    """
    known = {f.name: f.type for f in msgspec.structs.fields(table)}
    tag = table.__struct_config__.tag_field
    valid = [*known, *([tag] if tag else [])]
    for key, value in tree.items():
        if key not in valid:
            near = _nearest(key, valid)
            hint = f"did you mean `{at}{near}`?" if near else f"valid keys here: {', '.join(valid)}"
            raise ConfigError(f"{where}: unknown key `{at}{key}`", fix=hint)
        if key == tag:
            continue
        if isinstance(value, dict) and _is_table(known[key]):
            refuse_unknown(value, known[key], where, f"{at}{key}.")
        elif isinstance(value, list):
            for i, item in enumerate(value):
                row = _row_type(known[key], item, where, f"{at}{key}[{i}]")
                if row is not None and isinstance(item, dict):
                    refuse_unknown(item, row, where, f"{at}{key}[{i}].")


def in_words(error: msgspec.ValidationError, tree: dict[str, Any], table: Table, where: str) -> ConfigError:
    """The error of a value that its key cannot have; every key of the tree is known."""
    message, _, path = str(error).partition(" - at `$.")
    path = path.rstrip("`")
    value, declared = _find(tree, table, path)
    if path.endswith("[...]"):  # msgspec does not say which key of a map it was
        path, value, declared = _entry(tree, table, path.removesuffix("[...]"))
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", message):
        key = f"{path}.{missing[1]}" if path else missing[1]
        return ConfigError(f"{where}: key `{key}` is missing", fix=_SCHEMA)
    if message == "Expected `array`, got `object`" and list(_tables(declared)):
        return ConfigError(f"{where}: there may be several `{path}`", fix=f"write [[{path}]], not [{path}]")
    if message == "Expected `object`, got `array`":
        return ConfigError(f"{where}: there is only one `{path}`", fix=f"write [{path}], not [[{path}]]")
    if "matching regex" in message:
        return ConfigError(
            f"{where}: key `{path}`: {value!r} is no name", fix="use 1 to 64 of a-z, 0-9 and '-'"
        )
    if message.startswith("Invalid enum value") and get_origin(declared) is Literal:
        return ConfigError(f"{where}: key `{path}`: {message}", fix=_choose(str(value), get_args(declared)))
    said = f" {value!r}" if "got" in message else f", not {value!r}"
    shown = said if isinstance(value, str | int | float) and len(said) <= 60 else ""
    bound = re.search(r"`(?:int|float)` [<>]= (\S+)$", message)
    fix = f"the nearest that it may be is {bound[1].removesuffix('.0')}" if bound else _SCHEMA
    return ConfigError(f"{where}: key `{path}`: {message}{shown}", fix=fix)


def refuse_twins(config: Config, where: str) -> None:
    """Raise `ConfigError` for two devices of one name, on one port, of one camera, or on one pin."""
    previews = [c.name + PREVIEW_SUFFIX for c in config.camera if c.preview_seconds]
    names = [*(d.name for d in (*config.serial, *config.iio, *config.camera)), *previews]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two devices are called {name!r}", fix="give each its own name")
    pins = ("gpio", "led_gpio", "buzzer_gpio")
    used = [
        *((s.port, f"serial[{i}].port") for i, s in enumerate(config.serial)),
        *((d.device, f"iio[{i}].device") for i, d in enumerate(config.iio)),
        *_cameras(config),
        *((pin, f"button.{k}") for k in pins if (pin := getattr(config.button, k)) >= 0),
    ]
    first: dict[object, str] = {}
    for value, key in used:
        if (other := first.setdefault((value, key.partition("[")[0].partition(".")[0]), key)) != key:
            raise ConfigError(
                f"{where}: key `{key}`: {value!r} is what `{other}` says, too", fix="each needs its own"
            )


def _cameras(config: Config) -> Iterator[tuple[str, str]]:
    """What picks the camera, and the key that says so; files may be played twice."""
    for i, camera in enumerate(config.camera):
        for key in ("device", "camera_id"):
            if hasattr(camera, key):
                yield getattr(camera, key), f"camera[{i}].{key}"


def _is_table(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, msgspec.Struct)


def _tables(declared: Any) -> Iterator[Table]:
    """The tables that an array of tables may hold; nothing for other types."""
    args = get_args(declared)
    for row in (get_args(args[0]) or args[:1]) if args else ():
        if _is_table(row):
            yield row


def _row_type(declared: Any, item: Any, where: str, at: str) -> Table | None:
    """Which table a row of an array of tables is; a union is told apart by its tag."""
    tables = list(_tables(declared))
    if len(tables) == 1:
        return tables[0]
    if not tables or not isinstance(item, dict):
        return None
    tag_field = tables[0].__struct_config__.tag_field
    by_tag = {str(t.__struct_config__.tag): t for t in tables}
    tag = item.get(tag_field)
    if tag not in by_tag:
        problem = f"unknown {tag_field} {tag!r}" if tag is not None else f"`{tag_field}` is missing"
        raise ConfigError(f"{where}: {at}: {problem}", fix=_choose(str(tag), by_tag))
    return by_tag[tag]


def _find(tree: dict[str, Any], table: Table, path: str) -> tuple[Any, Any]:
    """The value at a path as msgspec writes it (`camera[0].fps`), and its declared type."""
    value: Any = tree
    declared: Any = table
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if name and _is_table(declared) and isinstance(value, dict) and name in value:
            fields = {f.name: f.type for f in msgspec.structs.fields(declared)}
            value, declared = value[name], fields.get(name)
        elif index and isinstance(value, list):
            value = value[int(index)]
            declared = _row_type(declared, value, "", "")
        else:
            return None, None
    return value, declared


def _entry(tree: dict[str, Any], table: Table, path: str) -> tuple[str, Any, Any]:
    """Of the map at a path the first key that cannot have its value: path, value, declared type."""
    entries, declared = _find(tree, table, path)
    _, kind = get_args(declared)
    for key, value in entries.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return f"{path}.{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else repr(key)}", value, kind
    raise AssertionError(path)  # a value of this map was just refused


def _choose(text: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, valid := list(valid), 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(map(repr, valid))}"


def _nearest(key: str, valid: Sequence[str]) -> str:
    """The valid key that is meant: a slip of the pen, or part of the name (`led` for `led_gpio`)."""
    parts = [v for v in valid if len(key) > 2 and (key.lower() in v or v in key.lower())]
    return next(iter(difflib.get_close_matches(key, valid, 1, 0.6) or parts), "")
