"""What `[[camera]]` tables ask for is what the cameras' processes are told."""

from __future__ import annotations

import msgspec
import pytest

from edgecap.cli.run import camera_of
from edgecap.config import parse_config
from edgecap.errors import ConfigError

HEAD = 'site = "lab"\nrig = "rig-07"\n[[camera]]\nname = "head"\n'


def spec_of(table):
    (config,) = parse_config(HEAD + table).camera
    return camera_of(config).spec


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('backend = "file"\npath = "a.mp4"\npreview_seconds = 5', {"path": "a.mp4", "preview_s": 5.0}),
        ('backend = "synthetic"\nseed = 3', {"type": "synthetic", "seed": 3, "preview_s": 10.0}),
        (
            'backend = "picamera2"\ncodec = "mjpeg"\nexposure_us = 4000\ngain = 2.0\npreview_seconds = 0',
            {
                "type": "pi",
                "codec": "mjpeg",
                "preview_s": 0.0,
                "exposure": {"exposure_us": 4000, "gain": 2.0, "max_exposure_us": 0},
            },
        ),
        (
            'backend = "picamera2"\ncamera_id = "imx708"\nmax_exposure_us = 8000',
            {"camera_id": "imx708", "exposure": {"exposure_us": 0, "gain": 0.0, "max_exposure_us": 8000}},
        ),
        (
            'backend = "uvc"\ndevice = "/dev/v4l/by-id/usb-x"\nfps = 60\ninput = "yuyv"\ncodec = "mjpeg"',
            {"device": "/dev/v4l/by-id/usb-x", "fps": 60.0, "wanted": "yuyv", "codec": "mjpeg"},
        ),
    ],
)  # fmt: skip
def test_every_key_arrives(table, told):
    spec = msgspec.to_builtins(spec_of(table))
    assert {k: spec[k] for k in told} == told


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('backend = "uvcc"', "did you mean 'uvc'"),
        ('backend = "uvc"\ndevise = "/dev/video0"', "did you mean `camera\\[0\\].device`"),
        ('backend = "picamera2"\ncodec = "vp9"', "codec"),
        ('backend = "picamera2"\nexposure_us = -1', "exposure_us"),
        ('backend = "synthetic"\n[[camera]]\nname = "head-preview"\nbackend = "synthetic"', "'head-preview'"),
    ],
)
def test_what_cannot_be_meant_is_refused(table, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(HEAD + table)
