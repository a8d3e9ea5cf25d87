"""Cameras without hardware: a drawn scene and a recorded clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

import edgecap
from edgecap.source.camera_file import FileCamera
from edgecap.source.camera_synthetic import SyntheticCamera

CLIP = Path(edgecap.__file__).parent / "sim/recordings/gpmf_karma.mp4"
SMALL = {"width": 160, "height": 96}
CAMERAS = [
    pytest.param(lambda: SyntheticCamera("head", 160, 96), id="synthetic"),
    pytest.param(lambda: FileCamera("head", CLIP, **SMALL), id="file"),
]


def clip_offsets_ns(path=CLIP):
    """Presentation times by an independent route: decoded frames' own pts."""
    with av.open(str(path)) as container:
        times = [Fraction(f.pts) * f.time_base for f in container.decode(video=0)]
    return [round((t - times[0]) * 10**9) for t in times]
