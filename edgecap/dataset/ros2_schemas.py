"""ROS 2 message definitions that an exported MCAP file carries, so that any tool can read it."""

from __future__ import annotations

_BAR = "=" * 80

_DEPENDENCIES: dict[str, str] = {
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec\n",
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id\n",
    "geometry_msgs/Quaternion": "float64 x\nfloat64 y\nfloat64 z\nfloat64 w\n",
    "geometry_msgs/Vector3": "float64 x\nfloat64 y\nfloat64 z\n",
}

_HEADER = ("std_msgs/Header", "builtin_interfaces/Time")

_DEFINITIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sensor_msgs/msg/Imu": (
        """std_msgs/Header header
geometry_msgs/Quaternion orientation
float64[9] orientation_covariance
geometry_msgs/Vector3 angular_velocity
float64[9] angular_velocity_covariance
geometry_msgs/Vector3 linear_acceleration
float64[9] linear_acceleration_covariance
""",
        (*_HEADER, "geometry_msgs/Quaternion", "geometry_msgs/Vector3"),
    ),
    "sensor_msgs/msg/MagneticField": (
        """std_msgs/Header header
geometry_msgs/Vector3 magnetic_field
float64[9] magnetic_field_covariance
""",
        (*_HEADER, "geometry_msgs/Vector3"),
    ),
    "sensor_msgs/msg/CompressedImage": (
        """std_msgs/Header header
string format
uint8[] data
""",
        _HEADER,
    ),
    "foxglove_msgs/msg/CompressedVideo": (
        """builtin_interfaces/Time timestamp
string frame_id
uint8[] data
string format
""",
        ("builtin_interfaces/Time",),
    ),
    "foxglove_msgs/msg/CameraCalibration": (
        """builtin_interfaces/Time timestamp
string frame_id
uint32 width
uint32 height
string distortion_model
float64[] d
float64[9] k
float64[9] r
float64[12] p
""",
        ("builtin_interfaces/Time",),
    ),
    "foxglove_msgs/msg/Log": (
        """uint8 UNKNOWN=0
uint8 DEBUG=1
uint8 INFO=2
uint8 WARNING=3
uint8 ERROR=4
uint8 FATAL=5
builtin_interfaces/Time timestamp
uint8 level
string message
string name
string file
uint32 line
""",
        ("builtin_interfaces/Time",),
    ),
    "edgecap_msgs/msg/ChannelArray": (
        """# One sample of a stream, in the units given in the channel's metadata.
std_msgs/Header header
string[] name
float32[] value
# false where the sensor was at full scale or gave no number
bool[] valid
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/RawBlock": (
        """# One sealed chunk of a stream, every number as it was recorded. header.stamp is its first sample.
std_msgs/Header header
# number of the chunk in its stream, and SHA-256 (hex) of its header in the store
uint32 seq
string chunk_sha256
# device's running number of the first sample; samples inside a block are consecutive
uint64 index
uint32 channels
string dtype
# rig time CLOCK_MONOTONIC_RAW; the truth lies within +- u_ns of t_rig_ns
int32 epoch
int64 u_ns
int64[] t_rig_ns
# unwrapped device counter at each sample
int64[] tick
# samples that each serial frame carried, and rig time at which it was read
int32[] frame_n
int64[] arrival_ns
# raw counts, sample after sample: counts_int for integer streams, counts_float for float streams
int32[] counts_int
float32[] counts_float
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/FrameInfo": (
        """# Numbers of one video frame as recorded; header.stamp is mid-exposure of its middle row.
std_msgs/Header header
uint64 index
bool key
uint32 bytes
# sensor timestamp (first row read out) in the camera's own clock
int64 tick
# mid-exposure in rig time CLOCK_MONOTONIC_RAW; the truth lies within +- u_ns
int64 t_rig_ns
int64 u_ns
int32 epoch
int64 arrival_ns
int64 exposure_ns
int64 line_ns
# NaN where the camera does not tell; metadata is all that it told beside, as JSON
float64 analogue_gain
float64 digital_gain
string metadata
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/ClockFit": (
        """# t = ref_ns + (tick - ref_tick) * tick_ns * (1 + drift_ppm * 1e-6), in rig time
std_msgs/Header header
string stream
uint32 seq
int64 ref_tick
int64 ref_ns
float64 drift_ppm
int64 tick_ns
int64 u_ns
float64 sigma_ns
int32 epoch
bool locked
int64 device_boot
int64 delay_p50_ns
int64 delay_p99_ns
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/ClockPair": (
        """# One reading of all host clocks; raw_ns is rig time.
std_msgs/Header header
int64 raw_ns
int64 monotonic_ns
int64 boottime_ns
int64 realtime_ns
int64 width_ns
bool ntp_synced
int64 ntp_max_error_us
int64 ntp_est_error_us
float64 ntp_freq_ppm
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/Mark": (
        """std_msgs/Header header
int64 t_rig_ns
string kind
string text
string by
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/Gap": (
        """# No sample of the stream exists between t0 and t1. lost is -1 when it cannot be counted.
std_msgs/Header header
string stream
int64 t0_rig_ns
int64 t1_rig_ns
builtin_interfaces/Time t1
int64 lost
string cause
""",
        _HEADER,
    ),
    "edgecap_msgs/msg/Verdict": (
        """# What the rig said about one of its streams while it recorded.
std_msgs/Header header
string stream
string state
float64 rate_hz
int64 n
int64 gaps
int64 lost
float64 saturated
int64 u_ns
float64 age_ms
# of a camera's last picture (docs/CAMERA.md), NaN for other streams: variance of its Laplacian at 320 pixels
# across, mean grey 0 to 1, shares of black and of white pixels
float64 sharpness
float64 brightness
float64 crushed
float64 clipped
# departure from the calibration at quiet moments (NaN: not known), and of what
float64 drift
string drift_of
""",
        _HEADER,
    ),
}

TYPES = tuple(_DEFINITIONS)


def definition(name: str) -> bytes:
    """The definition of a type with all its dependencies, in the `ros2msg` schema encoding."""
    text, dependencies = _DEFINITIONS[name]
    parts = [text, *(f"MSG: {d}\n{_DEPENDENCIES[d]}" for d in dependencies)]
    return f"{_BAR}\n".join(parts).encode()
