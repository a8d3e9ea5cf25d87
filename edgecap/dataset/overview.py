"""One picture of a session: what was seen, moved, felt and marked, and how well the clocks agreed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from edgecap.axes import triads
from edgecap.dataset.envelope import Envelope
from edgecap.dataset.session import RecordedSession
from edgecap.dataset.thumbnails import Thumbnail, thumbnails
from edgecap.errors import ExportError
from edgecap.model import Gap, StreamInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, DPI = 16.0, 110
LEFT, RIGHT = 0.045, 0.925
PANEL_IN, STRIP_IN, TITLE_IN, FOOT_IN, SPACE_IN = 1.15, 0.7, 1.3, 0.5, 0.27
MAX_BINS = 1400
PICTURES = 12
MARK_ROWS = 3
LABEL_LETTERS = 12
_VECTOR = re.compile(r"([a-z]+)_[xyz]")
SHOWN_UNIT = {"T": ("µT", 1e6)}
MANY_CHANNELS = 12
"""More channels than this are drawn as a heat map, one row each."""
INK, FAINT, GRID = "#22272e", "#6b7480", "#e6e9ed"
AXES_COLOURS = ("#c8553d", "#3f8f5f", "#2f6690")
CHANNEL_COLOURS = (
    "#2f6690",
    "#c8553d",
    "#3f8f5f",
    "#8e6bbf",
    "#d29a2e",
    "#3aa0a0",
    "#b0557f",
    "#7a7f87",
)
MARK_COLOURS = {"went-wrong": "#c1121f", "recovered": "#2a9d4a"}
MARK_COLOUR, GAP_COLOUR = "#6a4fb3", "#e8a0a0"
PANEL_NAME = {"accel": "acceleration", "gyro": "turn rate", "mag": "magnetic field"}
PANEL_UNIT = {"accel": "m/s²", "gyro": "rad/s", "mag": "µT"}
PANEL_SCALE = {"accel": 1.0, "gyro": 1.0, "mag": 1e6}


@dataclass(frozen=True, slots=True)
class _Panel:
    """Some channels of a stream that share an axis."""

    info: StreamInfo
    title: str
    unit: str
    names: list[str]
    columns: list[int]
    factors: NDArray[np.float64]
    envelope: Envelope

    @property
    def offsets(self) -> NDArray[np.float64]:
        return np.array([self.info.channels[c].offset for c in self.columns], np.float64)

    @property
    def is_heat_map(self) -> bool:
        return len(self.columns) > MANY_CHANNELS


@dataclass(slots=True)
class _Bound:
    """Clock bound of a stream over time: one point per chunk."""

    name: str
    t_ns: list[int]
    u_ns: list[int]


def draw_overview(session: RecordedSession, path: Path) -> Path:
    """Draw the session as a PNG at `path`; cost and memory do not grow with its length, but for reading."""
    panels: list[_Panel] = []
    bounds: list[_Bound] = []
    gaps = list(session.gaps)
    for info in session.sample_streams():
        own = list(_panels(session, info))
        bound = _Bound(info.name, [], [])
        _collect(session, info, own, bound, gaps)
        panels += own
        bounds.append(bound)
    films = [(info, thumbnails(session, info.name, PICTURES, 120)) for info in session.video_streams()]
    figure, axes = _layout(films, len(panels))
    duration_s = max((session.t1_ns - session.t0_ns) * 1e-9, 1e-3)
    for (info, pictures), axis in zip(films, axes, strict=False):
        _draw_film(axis, session, info, pictures, duration_s)
    for panel, axis in zip(panels, axes[len(films) :], strict=False):
        (_draw_heat_map if panel.is_heat_map else _draw_lines)(axis, panel)
    _draw_bounds(axes[-1], session, bounds)
    owners = [*(info.name for info, _ in films), *(panel.info.name for panel in panels), ""]
    for owner, axis in zip(owners, axes, strict=True):
        _finish(axis, session, [g for g in gaps if g.stream == owner], duration_s)
    axes[-1].tick_params(labelbottom=True)
    axes[-1].set_xlabel("seconds since the session was opened", fontsize=8, color=FAINT)
    _draw_mark_labels(axes[0], session, duration_s)
    _draw_title(figure, session, duration_s)
    FigureCanvasAgg(figure)
    _save(figure, path)
    return path


def _save(figure: Figure, path: Path) -> None:
    """Write the picture; its name appears only when it is whole."""
    partial = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(partial, dpi=DPI, format="png")
        partial.replace(path)
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}", fix="check permissions and free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _panels(session: RecordedSession, info: StreamInfo) -> Iterator[_Panel]:
    duration_s = max((session.t1_ns - session.t0_ns) * 1e-9, 1e-3)
    bins = int(np.clip(info.rate_hz_nominal * duration_s / 2, 8, MAX_BINS))

    def panel(title: str, unit: str, names: list[str], columns: list[int], factors: Any) -> _Panel:
        envelope = Envelope(session.t0_ns, session.t1_ns, bins, len(columns))
        return _Panel(info, title, unit, names, columns, np.asarray(factors, np.float64), envelope)

    found = triads(info) if info.kind in ("imu", "magnetic") else {}
    for sensor, (columns, factor) in sorted(found.items()):
        scales = [info.channels[c].scale * factor * PANEL_SCALE[sensor] for c in columns]
        yield panel(PANEL_NAME[sensor], PANEL_UNIT[sensor], ["x", "y", "z"], columns, scales)
    used = {c for columns, _ in found.values() for c in columns}
    rest = [c for c in range(len(info.channels)) if c not in used]
    for unit in dict.fromkeys(info.channels[c].unit for c in rest):
        columns = [c for c in rest if info.channels[c].unit == unit]
        names = [info.channels[c].name for c in columns]
        shown, factor = SHOWN_UNIT.get(unit, (unit, 1.0))
        scales = [info.channels[c].scale * factor for c in columns]
        yield panel(_common(names) or info.kind, shown, names, columns, scales)


def _common(names: list[str]) -> str:
    """What the channels are: the name of a single one, or `moment` of `moment_x`, `moment_y`, `moment_z`."""
    if len(names) == 1:
        return names[0]
    words = {match[1] if (match := _VECTOR.fullmatch(name)) else "" for name in names}
    return words.pop() if len(words) == 1 else ""


def _collect(
    session: RecordedSession, info: StreamInfo, panels: list[_Panel], bound: _Bound, gaps: list[Gap]
) -> None:
    """One pass over a stream fills all its panels."""
    for chunk in session.sample_chunks(info.name):
        for panel in panels:
            shown = (chunk.values[:, panel.columns] + panel.offsets) * panel.factors
            panel.envelope.add(chunk.t_ns, shown)
        bound.t_ns.append(int(chunk.t_ns[0]))
        bound.u_ns.append(chunk.u_ns)
        gaps += [gap for gap in chunk.gaps if gap not in gaps]


def _layout(films: list[tuple[StreamInfo, list[Thumbnail]]], panels: int) -> tuple[Figure, list[Axes]]:
    heights = []
    picture_width_in = WIDTH_IN * (RIGHT - LEFT) / PICTURES
    for _, pictures in films:
        shape = pictures[0].image.shape if pictures else (9, 16)
        heights.append(picture_width_in * shape[0] / shape[1] + 0.06)
    heights += [PANEL_IN] * panels + [STRIP_IN]
    height_in = TITLE_IN + FOOT_IN + sum(heights) + SPACE_IN * (len(heights) - 1)
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="white")
    axes: list[Axes] = []
    top = height_in - TITLE_IN
    for height in heights:
        box = (LEFT, (top - height) / height_in, RIGHT - LEFT, height / height_in)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        top -= height + SPACE_IN
    return figure, axes


def _draw_film(
    axis: Axes,
    session: RecordedSession,
    info: StreamInfo,
    pictures: list[Thumbnail],
    duration_s: float,
) -> None:
    half = duration_s / PICTURES * 0.485
    for picture in pictures:
        t = (picture.t_ns - session.t0_ns) * 1e-9
        axis.imshow(picture.image, extent=(t - half, t + half, 0.05, 1.0), aspect="auto", zorder=2)
        axis.plot([t, t], [-0.02, 0.05], color=INK, linewidth=1.0, zorder=3, clip_on=False)
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    _label(axis, info.name, "video" if pictures else "no picture")


def _draw_lines(axis: Axes, panel: _Panel) -> None:
    count = len(panel.names)
    colours: Sequence[Any] = AXES_COLOURS if panel.names == ["x", "y", "z"] else CHANNEL_COLOURS
    if count > len(colours):
        colours = list(colormaps["viridis"](np.linspace(0.0, 0.92, count)))
    for i, name in enumerate(panel.names):
        x, y = panel.envelope.line(i)
        axis.plot(x, y, color=colours[i], linewidth=0.75, label=name, zorder=3 - i * 0.01)
    _zoom(axis, panel.envelope)
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.legend(
        loc="center left",
        bbox_to_anchor=(1.004, 0.5),
        frameon=False,
        fontsize=7 if count <= len(CHANNEL_COLOURS) else 5.5,
        handlelength=1.0,
        labelspacing=0.25,
        borderaxespad=0.0,
    )
    _label(axis, panel.info.name, f"{panel.title}  [{panel.unit}]")


def _zoom(axis: Axes, envelope: Envelope) -> None:
    """A range that shows everything, with some air; a flat signal does not fill the panel with noise."""
    if not envelope.n:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no samples", transform=axis.transAxes, ha="center", va="center", color=FAINT)
        return
    low, high = float(np.nanmin(envelope.low)), float(np.nanmax(envelope.high))
    air = max((high - low) * 0.08, abs(high) * 1e-3, 1e-9)
    axis.set_ylim(low - air, high + air)


def _draw_heat_map(axis: Axes, panel: _Panel) -> None:
    envelope = panel.envelope
    middle = (envelope.low + envelope.high) / 2
    if envelope.n:
        deviation = middle - np.nanmedian(middle, axis=0)
        limit = float(np.nanpercentile(np.abs(deviation), 99.5)) or 1.0
        end_s = (envelope.line(0)[0][-1] + envelope.line(0)[0][0]) if len(middle) else 1.0
        image = axis.imshow(
            deviation.T,
            extent=(0.0, float(end_s), len(panel.names) - 0.5, -0.5),
            aspect="auto",
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
            zorder=1,
        )
        inset = axis.inset_axes((1.006, 0.05, 0.008, 0.9))
        bar = axis.figure.colorbar(image, cax=inset)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=6, colors=FAINT, length=2)
    ends = [n if len(n) <= LABEL_LETTERS else f"…{n[1 - LABEL_LETTERS :]}" for n in panel.names]
    axis.set_yticks([0, len(ends) - 1], [ends[0], ends[-1]], fontsize=6)
    _label(axis, panel.info.name, f"{panel.title}, {len(panel.names)} ch.  [{panel.unit}]")


def _draw_bounds(axis: Axes, session: RecordedSession, bounds: list[_Bound]) -> None:
    devices: dict[str, _Bound] = {}
    for bound in bounds:
        devices.setdefault(session.infos[bound.name].device, bound)
    for i, (device, bound) in enumerate(devices.items()):
        if bound.t_ns:
            t = (np.array([*bound.t_ns, session.t1_ns]) - session.t0_ns) * 1e-9
            u = np.array([*bound.u_ns, bound.u_ns[-1]]) * 1e-3
            colour = CHANNEL_COLOURS[i % len(CHANNEL_COLOURS)]
            axis.step(t, u, where="post", color=colour, linewidth=1.3, label=device)
            axis.fill_between(t, u, 0.01, step="post", color=colour, alpha=0.10, linewidth=0)
    highest = max((u for b in bounds for u in b.u_ns), default=1000) * 1e-3
    lowest = min((u for b in bounds for u in b.u_ns), default=1000) * 1e-3
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    )
    axis.yaxis.set_minor_locator(NullLocator())
    if highest < lowest * 100:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_ylim(max(lowest, 0.02) / 2, max(highest, 0.04) * 2)
    if any(bound.t_ns for bound in devices.values()):
        axis.legend(
            loc="center left", bbox_to_anchor=(1.004, 0.5), frameon=False, fontsize=7, handlelength=1.0
        )
    _label(axis, "clock bound", "± µs")


def _label(axis: Axes, name: str, what: str) -> None:
    axis.set_title(f"{name}  ·  {what}", loc="left", fontsize=8, color=INK, pad=3.5)


def _finish(axis: Axes, session: RecordedSession, gaps: list[Gap], duration_s: float) -> None:
    axis.set_xlim(0, duration_s)
    axis.tick_params("x", labelsize=7, colors=FAINT, length=3, labelbottom=False)
    axis.tick_params("y", labelsize=6 if axis.images else 7, colors=FAINT, length=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(GRID)
    if axis.lines or not axis.images:
        axis.grid(color=GRID, linewidth=0.6, zorder=0)
        axis.set_axisbelow(True)
    for gap in gaps:
        start, end = ((t - session.t0_ns) * 1e-9 for t in (gap.t0_ns, gap.t1_ns))
        # A gap of a few samples must still be seen on a long axis.
        end = max(end, start + duration_s / 800)
        axis.axvspan(start, end, color=GAP_COLOUR, alpha=0.55, linewidth=0, zorder=4)
    for mark in session.marks:
        axis.axvline(
            (mark.t_ns - session.t0_ns) * 1e-9,
            color=MARK_COLOURS.get(mark.kind, MARK_COLOUR),
            linewidth=1.1,
            linestyle=(0, (4, 2)),
            zorder=5,
        )


def _draw_mark_labels(axis: Axes, session: RecordedSession, duration_s: float) -> None:
    """Names of marks above the first panel, in as many rows as it takes to tell them apart."""
    row_ends_s = [-np.inf] * MARK_ROWS
    letter_s = duration_s / (WIDTH_IN * (RIGHT - LEFT)) * 0.058
    for mark in sorted(session.marks, key=lambda m: m.t_ns):
        x = (mark.t_ns - session.t0_ns) * 1e-9
        text = f"{mark.kind}: {mark.text}" if mark.text else mark.kind
        text = text if len(text) <= 36 else text[:35] + "…"
        length_s = letter_s * (len(text) + 2)
        is_late = x + length_s > duration_s
        start = x - length_s if is_late else x
        row = next((r for r, end in enumerate(row_ends_s) if end <= start), None)
        if row is None:
            continue
        row_ends_s[row] = start + length_s
        axis.annotate(
            text,
            (x, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 15 + 10 * row),
            textcoords="offset points",
            ha="right" if is_late else "left",
            va="bottom",
            fontsize=7.5,
            color=MARK_COLOURS.get(mark.kind, MARK_COLOUR),
            annotation_clip=False,
        )


def _draw_title(figure: Figure, session: RecordedSession, duration_s: float) -> None:
    height_in = figure.get_size_inches()[1]
    manifest, utc = session.manifest, session.utc
    began = datetime.fromtimestamp(utc.utc_ns(session.t0_ns) / 1e9, UTC)
    trust = "" if utc.trusted else " (wall clock not trusted)"
    whole = "complete" if session.report.complete else "INCOMPLETE"
    if session.outcome != "complete":
        whole = f"{whole}, {session.outcome}"
    parts = (
        session.key.session,
        f"{session.key.site}/{session.key.rig}",
        f"{began:%Y-%m-%d %H:%M:%S} UTC{trust}",
        _duration(duration_s),
        f"operator {manifest.get('operator', '?')}",
        whole,
    )
    task = str(manifest.get("task", "")) or "no task stated"
    figure.text(LEFT, 1 - 0.18 / height_in, task[:110], fontsize=15, fontweight="bold", color=INK, va="top")
    figure.text(LEFT, 1 - 0.48 / height_in, "   ·   ".join(parts), fontsize=9, color=FAINT, va="top")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
