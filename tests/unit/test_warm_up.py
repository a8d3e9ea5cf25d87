"""Nothing may be compiled while recording: a chunk that waits for a compiler is lost to a kill meanwhile."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import edgecap.kernels
from edgecap.codec.columns import ColumnDecoder, ColumnEncoder
from edgecap.kernels.compile import warm_up


def signatures() -> set[str]:
    """Every kernel with every type that it is compiled for in this process."""
    found = set()
    for module in pkgutil.iter_modules(edgecap.kernels.__path__):
        for name, value in vars(importlib.import_module(f"edgecap.kernels.{module.name}")).items():
            found |= {f"{module.name}.{name}{s}" for s in getattr(value, "signatures", ())}
    return found


def use() -> None:
    """Encode and decode what rigs record, at every level, first payloads and later ones."""
    rng = np.random.default_rng(1)
    for level in ("fast", "max", "stream"):
        for dtype, channels in ((np.int16, 1), (np.int16, 30), (np.int32, 3), (np.float32, 6)):
            encoder, decoder = ColumnEncoder(level), ColumnDecoder()
            for k in range(3):
                n = 400
                walk = rng.normal(0, 10, (n, channels)).cumsum(0)
                jitter = rng.integers(0, 90_000, n // 10)
                columns = {
                    "tick": np.arange(k * n, (k + 1) * n, dtype=np.int64) * 1000,
                    "values": (walk.round() * np.float32(0.01) if dtype is np.float32 else walk).astype(
                        dtype
                    ),
                    "frame_n": np.full(n // 10, 10, np.int32),
                    "arrival_ns": np.arange(n // 10, dtype=np.int64) * 10_000_000 + jitter,
                    "index": np.array([k * n], np.int64),
                }
                decoder.decode(encoder.encode(columns))


def main() -> None:
    list(warm_up())
    before = signatures()
    use()
    print(*sorted(signatures() - before), sep="\n")


def test_warm_up_compiles_all_that_a_recording_needs() -> None:
    # In a process of its own: other tests compile for types of their own.
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.test_warm_up"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


if __name__ == "__main__":
    main()
