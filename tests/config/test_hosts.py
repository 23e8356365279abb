"""[[fetch.hosts]]: tables of what private sources are shown, their secrets, and what is said about mistakes."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from v2td.config import InvalidConfigError, LoadedConfig, load, redacted

NO_FILE = Path("/dev/null")
PATTERN = 'pattern = "media.example.com"'


def load_file(tmp_path: Path, text: str, mode: int = 0o600, **environ: str) -> LoadedConfig:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    return load(path, {}, environ)


def mistake(tmp_path: Path, lines: str, mode: int = 0o600) -> str:
    """What is said about a second table with these lines; never the secret in them."""
    text = f'[[fetch.hosts]]\n{PATTERN}\nbearer_token = "env:TOKEN"\n[[fetch.hosts]]\n{lines}\n'
    with pytest.raises(InvalidConfigError) as caught:
        load_file(tmp_path, text, mode, TOKEN="t0ken")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    return str(caught.value).replace(f"(file {tmp_path}/config.toml)", "(file)")


def test_secrets_may_lie_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    secret.chmod(0o600)
    text = f"""
        [[fetch.hosts]]
        pattern = "*.example.com"
        port = 8443
        bearer_token = "env:TOKEN"
        headers = {{X-Key = "file:{secret}", X-Other = "credential:other"}}
        client_pem = "credential:other"
        [[fetch.hosts]]
        pattern = "b.example.com"
        headers.Authorization = "env:TOKEN"
    """
    (tmp_path / "other").write_text("from systemd")
    first, second = load_file(
        tmp_path, text, 0o644, TOKEN="t0ken", CREDENTIALS_DIRECTORY=str(tmp_path)
    ).settings.fetch.hosts
    assert first.bearer_token is not None
    assert first.client_pem is not None
    assert first.bearer_token.get_secret_value() == "t0ken"
    assert {name: value.get_secret_value() for name, value in first.headers.items()} == {
        "X-Key": "from-a-file",
        "X-Other": "from systemd",
    }
    assert first.client_pem.get_secret_value() == "from systemd"
    assert second.headers["Authorization"].get_secret_value() == "t0ken"
    assert (first.port, second.port, second.scheme) == (8443, None, "https")


def test_they_are_shown_without_secrets(tmp_path: Path) -> None:
    text = f'[[fetch.hosts]]\n{PATTERN}\nbearer_token = "hunter2"\nclient_pem = "hunter2"\nheaders = {{A = "hunter2"}}'
    config = load_file(tmp_path, text)
    assert "hunter2" not in json.dumps(redacted(config.settings)) + repr(config)
    assert redacted(config.settings)["fetch"]["hosts"][0]["pattern"] == "media.example.com"


def test_they_may_come_from_the_environment() -> None:
    tables = '[{pattern = "media.example.com", headers = {X-Key = "env:KEY"}}]'
    config = load(NO_FILE, {}, {"V2TD_FETCH__HOSTS": tables, "KEY": "secret"})
    assert config.settings.fetch.hosts[0].headers["X-Key"].get_secret_value() == "secret"
    with pytest.raises(InvalidConfigError, match=r"fetch.hosts = \*+ .*write \[\[fetch.hosts\]\]"):
        load(NO_FILE, {}, {"V2TD_FETCH__HOSTS": "media.example.com"})


HEADER = "expected table of texts"
BLANK = "must be a token without blanks"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('bearer_token = "hunter2"', "fetch.hosts[1].pattern = ********** (file): expected text such as"),
        (f'{PATTERN}\nbearer_tokne = "hunter2"', "bearer_tokne = ********** (file): no such setting; did you mean"),
        (f'{PATTERN}\nbearer_token = ["hunter2"]', "fetch.hosts[1].bearer_token = ********** (file): expected text"),
        (f'{PATTERN}\nbearer_token = "hunter2 hunter2"', f"fetch.hosts[1].bearer_token = ********** (file): {BLANK}"),
        (f'{PATTERN}\nheaders = "hunter2"', f"fetch.hosts[1].headers = ********** (file): {HEADER}"),
        (f'{PATTERN}\nheaders = {{A = ["hunter2"]}}', f"fetch.hosts[1].headers = ********** (file): {HEADER}"),
        (f'{PATTERN}\nheaders = {{"A B" = "hunter2"}}', "headers = ********** (file): must be of names"),
        (f'{PATTERN}\nheaders = {{Host = "hunter2"}}', "headers = ********** (file): must be without Host,"),
        (f'{PATTERN}\nheaders = {{A = "hunter2\\r\\nB: c"}}', "headers = ********** (file): must be of values"),
        (PATTERN, "must be followed by headers, bearer_token, client_pem or ca_file"),
        (f'{PATTERN}\nscheme = "http"\nclient_pem = "hunter2"', "client_pem = ********** (file): must be unset"),
        (f'{PATTERN}\nbearer_token = "t"\nheaders = {{authorization = "hunter2"}}', "must be without Authorization"),
        (f'{PATTERN}\nbearer_token = "env:NOWHERE"', "fetch.hosts[1].bearer_token = env:NOWHERE (file): environment"),
        (f'{PATTERN}\nheaders = {{A = "env:NOWHERE"}}', "fetch.hosts[1].headers.A = env:NOWHERE (file): environment"),
        (f"{PATTERN}\nport = 0", "fetch.hosts[1].port = ********** (file): expected whole number ≥ 1"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_table(lines: str, told: str, tmp_path: Path) -> None:
    assert told in mistake(tmp_path, lines)


@pytest.mark.parametrize("lines", ['bearer_token = "hunter2"', 'headers = {A = "hunter2"}', 'client_pem = "hunter2"'])
def test_a_secret_that_others_can_read_is_refused(lines: str, tmp_path: Path) -> None:
    told = mistake(tmp_path, f"{PATTERN}\n{lines}", 0o644)
    assert "fetch.hosts[1]." in told
    assert "others can read this secret" in told


HOST = "must be a host such as media.example.com, *.example.com or 10.20.0.1, without scheme, port and path"


@pytest.mark.parametrize(
    "pattern",
    [
        "https://media/", "media:8080", "media/x", "*", "*.", "*media", "a.*.b", "*.10.20.0.1", "127.1", "0x7f000001",
        "1.2.3.4.5", "10.20.0.0/16", "fe80::1%eth0", "[10.20.0.1]x", "m\u00fcnchen.example", "a..b", "-a.b", " a", ".",
    ],
)  # fmt: skip
def test_a_pattern_that_fits_no_host_is_refused(pattern: str, tmp_path: Path) -> None:
    told = mistake(tmp_path, f'pattern = "{pattern}"\nbearer_token = "hunter2"')
    assert f"fetch.hosts[1].pattern = ********** (file): {HOST}" in told
    for name in ("allowed_hosts", "denied_hosts"):
        with pytest.raises(InvalidConfigError) as caught:
            load_file(tmp_path, f'[fetch]\n{name} = ["good.example", "{pattern}"]')
        assert caught.value.problems[0].field == f"fetch.{name}"
        assert caught.value.problems[0].hint == f"entry 2 {HOST}"


def test_patterns_are_kept_as_hosts_are_compared(tmp_path: Path) -> None:
    written = ["Media.Example.", "*.B.example", "::ffff:9.9.9.9", "[2001:4860:0::88]", "10.20.0.1", "localhost", "a_b"]
    fetch = load_file(tmp_path, f"[fetch]\ndenied_hosts = {json.dumps(written)}").settings.fetch
    canonical = ("media.example", "*.b.example", "9.9.9.9", "2001:4860::88", "10.20.0.1", "localhost", "a_b")
    assert fetch.denied_hosts == canonical
