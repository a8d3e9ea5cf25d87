"""An Allan deviation as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecap.calibration import NoiseRecord
from edgecap.dataset.allan import INSTABILITY_FACTOR
from edgecap.errors import ExportError


def plot_noise(record: NoiseRecord, path: Path) -> None:
    """Write `path` (PNG): one panel per sensor, each axis with its white noise and instability.

    Raises:
        ExportError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ExportError(f"the plot needs {error.name}", fix="pip install 'edgecap[calibrate]'") from error
    units = list(dict.fromkeys(a.unit for a in record.axes))
    figure = Figure(figsize=(6 * len(units), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for at, unit in enumerate(units):
        axes = figure.add_subplot(1, len(units), at + 1)
        for axis in (a for a in record.axes if a.unit == unit):
            tau = np.array(axis.tau_s)
            (line,) = axes.loglog(tau, axis.deviation, label=axis.name)
            axes.loglog(tau, axis.white / np.sqrt(tau), ":", color=line.get_color(), linewidth=0.8)
            at_s, level = axis.instability_at_s, axis.instability * INSTABILITY_FACTOR
            axes.plot([at_s], [level], "o" if axis.reached else "v", color=line.get_color())
        axes.set_xlabel("averaging time τ [s]")
        axes.set_ylabel(f"Allan deviation [{unit}]")
        axes.grid(visible=True, which="both", linewidth=0.3)
        axes.legend()
    figure.suptitle(f"{record.stream}, {record.seconds:.0f} s at {record.rate_hz:.1f} Hz")
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}", fix="choose another --plot") from error
