from pathlib import Path
from typing import Any

import pytest

from v2td.config import AdminSettings, InvalidConfigError, load, redacted

TOKEN = "0123456789abcdef"


def loaded(**admin: str) -> AdminSettings:
    """[admin] as these flags have it."""
    return load(Path("/dev/null"), {f"admin.{name}": value for name, value in admin.items()}, {}).settings.admin


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    assert loaded(host=host).local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:127.0.0.1", "example.com", "localhost.example"])
def test_elsewhere_needs_a_token(host: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        loaded(host=host)
    (problem,) = caught.value.problems
    assert problem.field == "admin.host"
    assert problem.hint == "must be a loopback address, or admin.token set (openssl rand -hex 32)"
    assert not loaded(host=host, token=TOKEN).local


def test_a_socket_is_this_machine_alone_whatever_the_host() -> None:
    assert loaded(host="0.0.0.0", socket="/run/v2td/admin.sock").local


def test_a_short_token_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        loaded(token="canary")
    assert caught.value.problems[0].hint == "expected text of at least 16 characters"
    assert "canary" not in str(caught.value)


def test_the_token_may_be_a_credential(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text(TOKEN + "\n")
    settings = load(Path("/dev/null"), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).settings
    assert settings.admin.token is not None
    assert settings.admin.token.get_secret_value() == TOKEN
    shown: dict[str, Any] = redacted(settings)
    assert TOKEN not in str(shown)
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(("given", "missing"), [("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")])
def test_a_certificate_needs_its_key(given: str, missing: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        loaded(**{given: "/etc/v2td/file.pem"})
    assert caught.value.problems[0].field == f"admin.{missing}"
    assert caught.value.problems[0].hint == f"must be set together with {given}"
