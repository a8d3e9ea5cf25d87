"""Configuration: what is wrong is named by its key, with the nearest valid one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecap.cli.main import main
from edgecap.config import FileCameraConfig, config_schema, load_config, parse_config
from edgecap.errors import ConfigError

MINIMAL = 'site = "lab"\nrig = "rig-01"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('rigg = "x"', "unknown key `rigg`; did you mean `rig`?"),
        ('[spool]\ndirr = "x"', "unknown key `spool.dirr`; did you mean `spool.dir`?"),
        ('[[serial]]\nname = "a"\nprt = "x"', "unknown key `serial[0].prt`; did you mean `serial[0].port`?"),
        (
            '[[camera]]\nbackend = "file"\nname = "a"\npath = "p"\nbitrate = 3',
            "unknown key `camera[0].bitrate`",
        ),
        ('[[camera]]\nbackend = "flie"\nname = "a"', "unknown backend 'flie'; did you mean 'file'?"),
        ('[[camera]]\nname = "a"', "camera[0]: `backend` is missing"),
        ('[[serial]]\nname = "a"\nport = 3', "key `serial[0].port`: Expected `str`, got `int`"),
        ('[[serial]]\nname = "a"', "key `serial[0].port` is missing"),
        ('[[iio]]\nname = "a"\ndevise = "x"', "unknown key `iio[0].devise`; did you mean `iio[0].device`?"),
        ('[[iio]]\nname = "a"\ndevice = "x"\nclock = "realtime"', "key `iio[0].clock`: Invalid enum value"),
        (
            '[[iio]]\nname = "a"\ndevice = "x"\nattributes = { e = "1", in_f = 3 }',
            "key `iio[0].attributes.in_f`: Expected `str`, got `int` 3; see",
        ),
        (
            '[[serial]]\nname = "a"\nport = "p"\nrates = { imu = 500, "f x" = 1e9 }',
            "key `serial[0].rates.'f x'`: Expected `float` <= 10000.0, not 1000000000.0; "
            "the nearest that it may be is 10000",
        ),
        (
            '[[serial]]\nname = "a"\nport = "p"\n[[iio]]\nname = "a"\ndevice = "x"',
            "two devices are called 'a'",
        ),
        ('[[serial]]\nname = "../a"\nport = "p"', "key `serial[0].name`: '../a' is no name"),
        ("[capture]\nchunk_seconds = 99", "key `capture.chunk_seconds`: Expected `float` <= 10"),
        (
            '[capture]\ncodec_level = "best"',
            "key `capture.codec_level`: Invalid enum value 'best'; did you mean",
        ),
        ('[capture]\ncodec_level = "zip"', "use one of 'fast', 'max', 'stream'"),
        ('[serial]\nname = "a"\nport = "p"', "there may be several `serial`; write [[serial]], not [serial]"),
        ('[[session]]\ntask = "t"', "there is only one `session`; write [session], not [[session]]"),
        ('[[serial]]\nname = "a"\nport = ""', "key `serial[0].port`: Expected `str` of length >= 1, not ''"),
        ("[button]\nled = 3", "unknown key `button.led`; did you mean `button.led_gpio`?"),
        ("[chunk]\nseconds = 1", "unknown key `chunk`; valid keys here: site, rig, broker, spool"),
        ("[button]\ngpio = 17\nled_gpio = 17", "key `button.led_gpio`: 17 is what `button.gpio` says, too"),
        (
            '[[serial]]\nname = "a"\nport = "p"\n[[serial]]\nname = "b"\nport = "p"',
            "key `serial[1].port`: 'p' is what `serial[0].port` says, too",
        ),
        (
            '[[camera]]\nbackend = "picamera2"\nname = "a"\n[[camera]]\nbackend = "picamera2"\nname = "b"',
            "key `camera[1].camera_id`: '' is what `camera[0].camera_id` says, too",
        ),
        (
            '[[camera]]\nbackend = "synthetic"\nname = "a"\nfps = 1e9',
            "key `camera[0].fps`: Expected `float` <= 1000.0, not 1000000000.0",
        ),
        ("[spool", "not valid TOML"),
        (
            '[[serial]]\nname = "a"\nport = "p"\n[[camera]]\nbackend = "synthetic"\nname = "a"',
            "two devices are called 'a'",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse_config(MINIMAL + text if not text.startswith("rigg") else f'site = "lab"\n{text}', "rig.toml")
    assert str(found.value).startswith("rig.toml")
    assert expected in str(found.value)
    assert "\n" not in str(found.value).strip() or "TOML" in str(found.value)


def test_defaults_and_backends() -> None:
    config = parse_config(MINIMAL + '[[camera]]\nbackend = "file"\nname = "head-cam"\npath = "clip.mp4"')
    assert config.camera == (FileCameraConfig(name="head-cam", path="clip.mp4"),)
    assert config.spool.reserve_mb == 512


def test_missing_and_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgecap.config.DEFAULT_PATHS", (tmp_path / "none.toml",))
    with pytest.raises(ConfigError, match="no configuration found"):
        load_config(None)
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes(b'site = "\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.toml")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(MINIMAL + '[[serial]]\nname = "a"\nport = "p"')
    bad.write_text(MINIMAL + "[uplink]\nwindw = 3")
    assert main(["config", "check", "--config", str(good)]) == 0
    assert main(["config", "show", "--config", str(good)]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["rig"] == "rig-01"
    assert main(["config", "check", "--config", str(bad)]) == 2
    error = capsys.readouterr().err
    assert error == f"edgecap: {bad}: unknown key `uplink.windw`; did you mean `uplink.window`?\n"
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(config_schema()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no device is configured; add a [[serial]]"),
        ('[broker]\nurl = "http://x"', "broker URL has scheme 'http'; write mqtt://host:1883"),
        ('[broker]\nurl = "mqtt://x:99999"', "is not a URL"),
        ('[broker]\nurl = "mqtt://a:secret@x"', "carries a password"),
        ('[broker]\nurl = "mqtt://x"\nca_file = "/ca"', "certificates but no TLS; write mqtts://"),
        ('[broker]\nurl = "mqtts://x"\ncert_file = "/c"', "needs both its certificate and its key file"),
        ('[calibration]\nfile = "/gone.json"', "cannot read the calibration /gone.json"),
    ],
)
@pytest.mark.parametrize("command", [["config", "check"], ["run"]])
def test_check_refuses_what_the_daemon_refuses(
    command: list[str], text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rig.toml"
    path.write_text(MINIMAL + text + ('\n[[serial]]\nname = "a"\nport = "p"' if text else ""))
    assert main([*command, "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "secret" not in error
