"""The one `kernel` decorator and the list of what to compile ahead of time."""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

WARM_UP_MODULES = (
    "edgecap.kernels.framing",
    "edgecap.kernels.align",
    "edgecap.kernels.statistics",
    "edgecap.kernels.resample",
    "edgecap.kernels.rice",
    "edgecap.kernels.rests",
    "edgecap.kernels.repeats",
    "edgecap.kernels.digits",
    "edgecap.kernels.multiples",
    "edgecap.kernels.beside",
    "edgecap.kernels.columns",  # the longest, last: `edgecap warmup` has a second process begin with it
)
"""Modules that define `warm_up()`: it calls every kernel once with each dtype that the daemon uses.

What only `edgecap calibrate` or an export needs is not among them: it compiles when it is first asked for."""


_kernels: list[Any] = []


def digest_of(folder: Path) -> str:
    """Of all modules in a folder: their kernels call parts from one another."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


_SOURCES = digest_of(Path(__file__).parent)


class CacheState(NamedTuple):
    """What `warm_up` met."""

    path: str
    """Where compiled kernels are kept; empty where there is no place for them."""
    writable: bool
    loaded: int
    compiled: int


def cache_state() -> CacheState:
    """Of the kernels that have been called in this process, how many came from the cache."""
    called = [k for k in _kernels if getattr(k, "signatures", ())]
    loaded = sum(any(k.stats.cache_hits.values()) and not any(k.stats.cache_misses.values()) for k in called)
    path = next((k.stats.cache_path for k in called if k.stats.cache_path), "")
    writable = bool(path)
    if path:
        try:
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError:
            writable = False
    return CacheState(path, writable, loaded, len(called) - loaded)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` with numba: `nogil`, cached on disk, exact IEEE arithmetic, one thread."""
    compile_ = partial(numba.njit, nogil=True, fastmath=False, parallel=False, error_model="numpy")
    try:
        compiled: Any = compile_(cache=True)(function)
        if hasattr(compiled, "_cache"):  # not where NUMBA_DISABLE_JIT is set
            # numba's own stamp is time and size of the file that the kernel is in: machine code would stay
            # as it is when a part in another module is edited.
            compiled._cache._cache_file._source_stamp = _SOURCES
    except RuntimeError:
        # There is no place for the cache: every start compiles, but the rig records (see `cache_state`).
        compiled = compile_(cache=False)(function)
    _kernels.append(compiled)
    return cast("Callable[P, R]", compiled)


def part(function: Callable[P, R]) -> Callable[P, R]:
    """The same for a function that only kernels call: it is kept with them, and Python cannot call it."""
    return _part(function, forceinline=False)  # else it takes it over from the `inlined` ones that call it


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A part copied to where it is called: for short ones on the way of every frame."""
    return _part(function, forceinline=True)


def _part(function: Callable[P, R], *, forceinline: bool) -> Callable[P, R]:
    njit: Any = numba.njit  # its stubs do not know the last three options
    compiled = njit(
        nogil=True,
        error_model="numpy",
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        forceinline=forceinline,
    )(function)
    return cast("Callable[P, R]", compiled)


def warm_up() -> Iterator[tuple[str, int, int]]:
    """Compile (or load from the cache) every kernel; yields (module, done, total) after each module."""
    for done, name in enumerate(WARM_UP_MODULES, 1):
        importlib.import_module(name).warm_up()
        yield name, done, len(WARM_UP_MODULES)
