"""Camera chains as Kalibr writes and reads them (its wiki, page "yaml formats")."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecap import __version__
from edgecap.calibration import CameraRecord
from edgecap.dataset.mcap_streams import topic_base
from edgecap.errors import CalibrationError, UsageError

Four = tuple[float, float, float, float]
MAX_BYTES = 1 << 20


class KalibrCamera(msgspec.Struct, frozen=True):
    """One camera of a chain; keys that are not named here are ignored."""

    camera_model: str
    intrinsics: list[float]
    distortion_model: Literal["radtan", "equidistant"]
    distortion_coeffs: Four
    resolution: tuple[int, int]
    rostopic: str = ""
    T_cam_imu: tuple[Four, Four, Four, Four] | None = None
    timeshift_cam_imu: float | None = None


def read_camchain(path: Path, streams: Sequence[str]) -> list[CameraRecord]:
    """The chain's cameras, cam0 being the first of `streams`.

    Raises:
        UsageError: the file cannot be read, or has other cameras than streams were named.
        CalibrationError: it is no camera chain, or of a model that is not supported.
    """
    import yaml

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", fix="give a camchain.yaml") from error
    if data.startswith(b"%YAML:"):  # OpenCV's dialect, which some tools write
        data = data.partition(b"\n")[2]
    try:
        chain = yaml.safe_load(data[:MAX_BYTES].decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CalibrationError(
            f"{path} is not YAML: {reason}", fix="give a camchain.yaml of Kalibr"
        ) from error
    cameras = (
        sorted(k for k in chain if isinstance(k, str) and k.startswith("cam"))
        if isinstance(chain, dict)
        else []
    )
    if not cameras:
        raise CalibrationError(f"{path} holds no cam0", fix="give a camchain.yaml of Kalibr")
    if len(cameras) != len(streams):
        raise UsageError(
            f"{path} holds {len(cameras)} cameras, {len(streams)} streams were named",
            fix=f"name one stream for each of {', '.join(cameras)}",
        )
    return [_record(path, name, chain[name], stream) for name, stream in zip(cameras, streams, strict=True)]


def _record(path: Path, name: str, fields: Any, stream: str) -> CameraRecord:
    try:
        camera = msgspec.convert(fields, KalibrCamera)
    except msgspec.ValidationError as error:
        raise CalibrationError(
            f"{path}: {name}: {error}", fix="see Kalibr's page on its YAML formats"
        ) from error
    if camera.camera_model != "pinhole" or len(camera.intrinsics) != 4:
        raise CalibrationError(
            f"{path}: {name} is a camera of model {camera.camera_model!r}", fix="only `pinhole` is supported"
        )
    fu, fv, pu, pv = camera.intrinsics
    return CameraRecord(
        stream=stream,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        edgecap=__version__,
        source=path.name,
        intrinsics=(fu, fv, pu, pv),
        distortion_model=camera.distortion_model,
        distortion_coeffs=camera.distortion_coeffs,
        resolution=camera.resolution,
        t_cam_imu=camera.T_cam_imu,
        timeshift_cam_imu_s=camera.timeshift_cam_imu,
    )


def write_camchain(path: Path, records: Sequence[CameraRecord]) -> None:
    """Write a chain of these cameras; raises `UsageError` when the file cannot be written."""
    import yaml

    chain: dict[str, Any] = {}
    for k, record in enumerate(records):
        fields: dict[str, Any] = {
            "cam_overlaps": [j for j in range(len(records)) if j != k],
            "camera_model": record.camera_model,
            "distortion_coeffs": list(record.distortion_coeffs),
            "distortion_model": record.distortion_model,
            "intrinsics": list(record.intrinsics),
            "resolution": list(record.resolution),
            "rostopic": f"{topic_base(record.stream)}/video",
        }
        if record.t_cam_imu is not None:
            fields["T_cam_imu"] = [list(row) for row in record.t_cam_imu]
        if record.timeshift_cam_imu_s is not None:
            fields["timeshift_cam_imu"] = record.timeshift_cam_imu_s
        chain[f"cam{k}"] = fields
    try:
        path.write_text(yaml.safe_dump(chain, default_flow_style=None, sort_keys=False), "utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", fix="choose another --to-kalibr"
        ) from error
