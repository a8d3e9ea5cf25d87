"""A site's file, and paths that only a service's environment completes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.cli.main import main
from edgecap.config import BrokerConfig, broker_file, load_site_config, parse_config
from edgecap.errors import ConfigError

KEY = "${CREDENTIALS_DIRECTORY}/broker-key"
EXAMPLES = Path(__file__).parents[2] / "systemd"


def test_credentials_directory_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = BrokerConfig(key_file=KEY, ca_file="/etc/ca.pem")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edgecap.service")
    assert broker_file(broker, "key_file") == Path("/run/credentials/edgecap.service/broker-key")
    assert broker_file(broker, "ca_file") == Path("/etc/ca.pem")
    assert broker_file(broker, "cert_file") is None


def test_outside_the_service_the_check_passes_and_the_use_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config = parse_config(f'site = "lab"\nrig = "r"\n[broker]\nkey_file = "{KEY}"\n')
    with pytest.raises(ConfigError, match=r"`broker.key_file`.*CREDENTIALS_DIRECTORY is set by systemd"):
        broker_file(config.broker, "key_file")


@pytest.mark.parametrize(
    "path",
    ["${CREDENTIAL_DIRECTORY}/key", "$HOME/key", "/a/${CREDENTIALS_DIRECTORY}/b", "${CREDENTIALS_DIRECTORY}"],
)
def test_other_variables_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"key `broker.key_file`.*variable.*CREDENTIALS_DIRECTORY"):
        parse_config(f'site = "lab"\nrig = "r"\n[broker]\nkey_file = "{path}"\n')


def test_examples_are_valid() -> None:
    assert load_site_config(EXAMPLES / "site.toml").ingest.store == "/var/lib/edgecap-ingest"
    parse_config((EXAMPLES / "edgecap.toml").read_text(), "edgecap.toml")


def test_site_file_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[ingest]\nstroe = "/srv"\n')
    assert main(["ingest", "--config", str(path)]) == 2
    assert "unknown key `ingest.stroe`; did you mean `ingest.store`?" in capsys.readouterr().err
    path.write_text('[broker]\nurl = "mqtt://127.0.0.1:1"\n[ingest]\nstore = "/dev/null/x"\n')
    assert main(["ingest", "--config", str(path)]) != 0
    assert "/dev/null/x" in capsys.readouterr().err


def test_ingest_without_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", "--broker", "mqtt://127.0.0.1:1"]) == 2
    assert "no store is named; give --store" in capsys.readouterr().err
