"""The front of a columns payload: which columns there are, of what type and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import ChunkError

Array = NDArray[Any]

DTYPES = tuple(
    np.dtype(t) for t in ("<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "|i1", "|u1", "<f8", "|b1")
)
"""Sample types by their number in the format."""
NUMBERS = {dtype: number for number, dtype in enumerate(DTYPES)}
KNOWN_NAMES = ("", "tick", "values", "frame_n", "arrival_ns", "index")
"""Names with a number of their own; 0 stands for a name that is spelled out."""
MAX_COLUMNS = 64
MAX_NAME_BYTES = 64
MAX_CHANNELS = 1 << 12
"""Of all columns together; eight adaptively coded channels need about 11 kB of state."""
MAX_ELEMENTS = 1 << 22
"""Of all columns of one payload together: what hostile bytes can make a reader allocate."""


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Name, type and shape of one column; `channels` is 0 for a one-dimensional one."""

    name: str
    dtype: np.dtype[Any]
    rows: int
    channels: int
    # What follows from these is asked for with every payload.
    shape: tuple[int, ...] = field(init=False, compare=False, repr=False)
    lanes: int = field(init=False, compare=False, repr=False)
    """Number of interleaved series of samples."""
    raw_bytes: int = field(init=False, compare=False, repr=False)
    width: int = field(init=False, compare=False, repr=False)
    """Bits of its integers."""
    is_plain: bool = field(init=False, compare=False, repr=False)
    """Whether the samples themselves are integers of that width."""

    def __post_init__(self) -> None:
        lanes, size = self.channels or 1, self.dtype.itemsize
        put = object.__setattr__
        put(self, "shape", (self.rows, self.channels) if self.channels else (self.rows,))
        put(self, "lanes", lanes)
        put(self, "raw_bytes", self.rows * lanes * size)
        put(self, "width", 16 if size == 2 else 32)
        put(self, "is_plain", size in (2, 4) and self.dtype.kind in "iu")


Layout = tuple[ColumnLayout, ...]


class Reader:
    """A cursor over payload bytes that refuses to run past their end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise ChunkError(f"columns payload ends after {len(self.data)} bytes, in the middle of a column")
        value = self.data[self.at]
        self.at += 1
        return value

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ChunkError(f"columns payload ends after {len(self.data)} bytes, in the middle of a column")
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def varint(self, limit: int) -> int:
        """An unsigned LEB128 number of at most `limit`."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if value > limit:
                raise ChunkError(f"columns payload: number {value} exceeds the limit of {limit}")
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ChunkError("columns payload: number is longer than 9 bytes")


def put_varint(out: bytearray, value: int) -> None:
    """Append an unsigned LEB128 number."""
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def layout_of(columns: Mapping[str, Array]) -> Layout:
    """Describe columns that are to be encoded; raises `ChunkError` on what the format cannot hold."""
    if len(columns) > MAX_COLUMNS:
        raise ChunkError(f"{len(columns)} columns in one table, the limit is {MAX_COLUMNS}")
    layout = []
    elements = 0
    for name, array in columns.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in NUMBERS:
            raise ChunkError(f"column {name}: samples of type {array.dtype} cannot be encoded")
        if array.ndim not in (1, 2):
            raise ChunkError(f"column {name} has {array.ndim} dimensions; it must have one or two")
        if not name or len(name.encode()) > MAX_NAME_BYTES:
            raise ChunkError(f"column name {name!r} must have 1 to {MAX_NAME_BYTES} bytes")
        channels = array.shape[1] if array.ndim == 2 else 0
        if array.ndim == 2 and not 1 <= channels <= MAX_CHANNELS:
            raise ChunkError(f"column {name} has {channels} channels; it must have 1 to {MAX_CHANNELS}")
        elements += array.size
        layout.append(ColumnLayout(name, dtype, array.shape[0], channels))
    if elements > MAX_ELEMENTS:
        raise ChunkError(
            f"{elements} samples in one table, the limit is {MAX_ELEMENTS}", fix="close chunks earlier"
        )
    lanes = sum(column.lanes for column in layout)
    if lanes > MAX_CHANNELS:
        raise ChunkError(f"{lanes} channels in one table, the limit is {MAX_CHANNELS}")
    return tuple(layout)


def write_layout(out: bytearray, layout: Layout) -> None:
    """Append for each column its kind, name, rows and channels."""
    for column in layout:
        number = KNOWN_NAMES.index(column.name) if column.name in KNOWN_NAMES else 0
        out.append(number << 5 | kind_of(column))
        if number == 0:
            name = column.name.encode()
            out.append(len(name))
            out += name
        write_shape(out, column)


def kind_of(column: ColumnLayout) -> int:
    """Five bits: a column's type, and whether it has channels."""
    return NUMBERS[column.dtype] << 1 | (column.channels > 0)


def write_shape(out: bytearray, column: ColumnLayout) -> None:
    """Append a column's rows and channels."""
    put_varint(out, column.rows)
    if column.channels:
        put_varint(out, column.channels)


def read_layout(reader: Reader, count: int) -> Layout:
    """Read what `write_layout` wrote for `count` columns; raises `ChunkError` on anything else."""
    layout: list[ColumnLayout] = []
    for _ in range(count):
        kind = reader.byte()
        number = kind >> 5
        if number >= len(KNOWN_NAMES):
            raise ChunkError(f"columns payload: unknown kind of column {kind:#04x}")
        name = KNOWN_NAMES[number]
        if number == 0:
            spelled = reader.take(reader.byte())
            if not 1 <= len(spelled) <= MAX_NAME_BYTES:
                raise ChunkError("columns payload: a column name has an impossible length")
            try:
                name = spelled.decode()
            except UnicodeDecodeError as error:
                raise ChunkError("columns payload: a column name is not UTF-8") from error
        layout.append(read_column(reader, name, kind & 31))
    return checked(tuple(layout))


def read_column(reader: Reader, name: str, kind: int) -> ColumnLayout:
    """Read what `write_shape` wrote for a column of a kind as of `kind_of`."""
    if kind >> 1 >= len(DTYPES):
        raise ChunkError(f"columns payload: unknown type of column {kind >> 1}")
    rows = reader.varint(MAX_ELEMENTS)
    channels = reader.varint(MAX_CHANNELS) if kind & 1 else 0
    if kind & 1 and channels == 0:
        raise ChunkError(f"columns payload: column {name} has no channels")
    return ColumnLayout(name, DTYPES[kind >> 1], rows, channels)


def write_rows(out: bytearray, layout: Layout) -> None:
    """Append only the numbers of rows, for a payload whose columns are those of the one before."""
    for column in layout:
        put_varint(out, column.rows)


def read_rows(reader: Reader, before: Layout) -> Layout:
    """Read what `write_rows` wrote for the columns of the previous payload."""
    return checked(
        tuple(ColumnLayout(c.name, c.dtype, reader.varint(MAX_ELEMENTS), c.channels) for c in before)
    )


def checked(layout: Layout) -> Layout:
    """Refuse duplicate names and sizes beyond the limit, before anything is allocated."""
    if len({column.name for column in layout}) != len(layout):
        raise ChunkError("columns payload: two columns have the same name")
    elements = sum(math.prod(column.shape) for column in layout)
    if elements > MAX_ELEMENTS:
        raise ChunkError(f"columns payload declares {elements} samples, the limit is {MAX_ELEMENTS}")
    lanes = sum(column.lanes for column in layout)
    if lanes > MAX_CHANNELS:
        raise ChunkError(f"columns payload declares {lanes} channels, the limit is {MAX_CHANNELS}")
    return layout


def same_columns(a: Layout, b: Layout) -> bool:
    """Whether two layouts differ at most in numbers of rows."""
    return len(a) == len(b) and all(
        x.name == y.name and x.dtype == y.dtype and x.channels == y.channels
        for x, y in zip(a, b, strict=True)
    )
