"""The one `kernel` decorator and the list of what to compile ahead of time."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

WARM_UP_MODULES = (
    "edgecap.kernels.framing",
    "edgecap.kernels.align",
    "edgecap.kernels.columns",
    "edgecap.kernels.statistics",
    "edgecap.kernels.resample",
)
"""Modules that define `warm_up()`: it calls every kernel once with each dtype that the daemon uses.

What only `edgecap calibrate` needs is not among them: it compiles when it is first asked for."""


_kernels: list[Any] = []


class CacheState(NamedTuple):
    """What `warm_up` met."""

    path: str
    """Where compiled kernels are kept."""
    writable: bool
    loaded: int
    compiled: int


def cache_state() -> CacheState:
    """Of the kernels that have been called in this process, how many came from the cache."""
    stats = [k.stats for k in _kernels if hasattr(k, "stats")]
    compiled = sum(any(s.cache_misses.values()) for s in stats)
    loaded = sum(any(s.cache_hits.values()) and not any(s.cache_misses.values()) for s in stats)
    path = stats[0].cache_path if stats else ""
    try:
        with tempfile.TemporaryFile(dir=path or None):
            writable = True
    except OSError:
        writable = False
    return CacheState(path, writable, loaded, compiled)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` with numba: `nogil`, cached on disk, exact IEEE arithmetic, one thread."""
    compiled = numba.njit(nogil=True, cache=True, fastmath=False, parallel=False)(function)
    _kernels.append(compiled)
    return cast("Callable[P, R]", compiled)


def warm_up() -> Iterator[tuple[str, int, int]]:
    """Compile (or load from the cache) every kernel; yields (module, done, total) after each module."""
    for done, name in enumerate(WARM_UP_MODULES, 1):
        importlib.import_module(name).warm_up()
        yield name, done, len(WARM_UP_MODULES)
