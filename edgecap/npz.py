"""Files of arrays that people bring: plain numbers, or one sentence that says what they are instead."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import UsageError

_ZIP, _NPY = b"PK\x03\x04", b"\x93NUMPY"
DAMAGE = (
    *(OSError, ValueError, EOFError, LookupError, MemoryError, ArithmeticError, RuntimeError, TypeError),
    *(AttributeError, SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error),
    Warning,
)
"""What NumPy raises for damaged files, whose heads it parses as Python.

A warning is among them for whoever makes warnings errors: a damaged head can name a deprecated type.
"""


def read_npz(path: Path, *, fix: str, names: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name, or those of `names` that it has.

    Raises:
        UsageError: it cannot be read, is another kind of file, is damaged, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            reason = why_not(file.read(8), _ZIP)
            file.seek(0)
            if not reason:
                with np.load(file, allow_pickle=False) as opened:
                    return {n: opened[n] for n in opened.files if names is None or n in names}
    except FileNotFoundError:
        raise UsageError(f"there is no {path}", fix="check the path") from None
    except DAMAGE as error:
        reason = words_of(error)
    raise UsageError(f"{path} is not an npz of plain arrays: {reason}", fix=fix)


def why_not(head: bytes, wanted: bytes = _NPY) -> str:
    """Why a file that begins with `head` is no npy (or npz) file; empty if it looks like one."""
    if head.startswith(wanted):
        return ""
    if not head:
        return "it is empty"
    if head.startswith((_NPY, _ZIP)):
        return "it holds a single array" if wanted == _ZIP else "it holds several arrays"
    return "it is another kind of file"


def words_of(error: BaseException) -> str:
    """The reason in one line, without NumPy's advice to load pickles."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if not isinstance(error, OSError | ValueError):
        return f"it is damaged or cut short ({line})"
    return "it holds Python objects" if "pickle" in line or "object" in line.lower() else line
