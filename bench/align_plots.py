"""The pictures of `bench/align.py`."""

from __future__ import annotations

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.align_jobs import SLEWED, STEPPED, exchange_of, ours

_MARKS = "ov^<>sDPXp*"


def draw(folder, judged, compared):
    """alignment.png: two minutes of one link; -seeds: every seed; -peers: everybody."""
    folder.mkdir(parents=True, exist_ok=True)
    _trace(folder / "alignment.png")
    if judged:
        _seeds(folder / "alignment-seeds.png", judged)
    if compared:
        _peers(folder / "alignment-peers.png", compared)


def _save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"wrote {path}")


def _trace(path):
    result, error = ours("usb-1ms-batch", exchange_of("usb-1ms-batch", 2, 120.0))
    since = (result.arrival_ns - result.arrival_ns[0]) / 1e9
    figure, axis = plt.subplots(figsize=(9, 3.6))
    axis.fill_between(
        since, (error - result.u_ns) / 1e3, (error + result.u_ns) / 1e3, alpha=0.25, label="published bound"
    )
    axis.plot(since, error / 1e3, lw=1, label="published time − truth")
    axis.axhline(0.0, color="k", lw=0.5)
    axis.set(ylim=(-300, 300), xlim=(0, 120), xlabel="seconds since the first frame", ylabel="µs")
    axis.legend(loc="upper right")
    _save(figure, path)


def _rows(axis, names):
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.grid(axis="x", which="both", lw=0.3)
    axis.grid(axis="y", lw=0.2)


def _seeds(path, judged):
    """Each seed's p99 and median bound."""
    names = list(judged)
    figure, axis = plt.subplots(figsize=(9, 0.28 * len(names) + 1.2))
    for y, name in enumerate(names):
        for key, mark, colour in (("p99", "o", "C0"), ("u50", "|", "C1")):
            values = np.array([row[key] for row in judged[name]]) / 1e3
            axis.plot(
                values, np.full(len(values), y), mark, color=colour, ms=4 if mark == "o" else 8, alpha=0.7
            )
    axis.plot([], [], "o", color="C0", ms=4, label="p99 of |error| after 10 s, each seed")
    axis.plot([], [], "|", color="C1", ms=8, label="median published bound, each seed")
    _rows(axis, names)
    axis.set_xlabel("µs")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), ncol=2, fontsize=8, frameon=False)
    _save(figure, path)


def _peers(path, compared):
    """p99 of everybody, the median seed."""
    names = [name for name in compared if name not in (SLEWED, STEPPED)]
    methods = list(compared[names[0]][0]["p99"]) if names else []
    figure, axis = plt.subplots(figsize=(9, 0.28 * len(names) + 1.6))
    for k, method in enumerate(methods):
        p99 = [np.median([row["p99"][method] for row in compared[name]]) / 1e3 for name in names]
        own = method == "edgecap"
        axis.plot(
            p99,
            range(len(names)),
            "o" if own else _MARKS[k % len(_MARKS)],
            color="k" if own else f"C{k - 1}",
            ms=7 if own else 5,
            alpha=1.0 if own else 0.7,
            label=method,
        )
    _rows(axis, names)
    axis.set_xlabel("p99 of |error| after 10 s, median seed, µs")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncol=5, fontsize=8, frameon=False)
    _save(figure, path)
