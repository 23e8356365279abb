"""Secrets: where they may lie, who may read them there, and that nothing shows them."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from v2td.config import DatabaseSettings, InvalidConfigError, S3Settings, Settings, load, redacted, without_password
from v2td.config.definitions import DEFINITIONS
from v2td.config.secrets import MAX_SECRET_BYTES

NO_FILE = Path("/dev/null")
SECRETS = [
    "kafka.sasl_password",
    "kafka.ssl_client_pem",
    "s3.secret_key",
    "database.dsn",
    "database.read_dsn",
    "admin.token",
    "cache.redis_url",
    "webhooks.secret",
    "webhooks.old_secret",
    "tracing.authorization",
]
IN_TABLES = [
    "fetch.hosts.bearer_token",
    "fetch.hosts.headers",
    "fetch.hosts.client_pem",
    "providers.openai.api_key",
    "providers.plugins.options",
    "s3.stores.secret_key",
]


def secret_key(value: str, **environ: str) -> str:
    """What s3.secret_key = value comes to."""
    config = load(NO_FILE, {"s3.secret_key": value, "s3.access_key": "key"}, environ)
    assert config.settings.s3.secret_key is not None
    return config.settings.s3.secret_key.get_secret_value()


def refusal(value: str, **environ: str) -> str:
    """Why s3.secret_key = value is refused."""
    with pytest.raises(InvalidConfigError) as caught:
        secret_key(value, **environ)
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a secret that only we can read."""
    path = tmp_path / "secret"
    path.write_text("hunter2\n")
    path.chmod(0o600)
    return path


def test_the_secret_settings() -> None:
    everything = [each for definition in DEFINITIONS.values() for each in (definition, *definition.columns)]
    assert sorted(each.key for each in everything if each.secret) == sorted(SECRETS + IN_TABLES)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_in_a_file(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert secret_key(f"file:{file}") == "hunter2"


@pytest.mark.parametrize(
    ("content", "secret"), [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), (" a \n", " a "), ("a\n\n", "a\n")]
)
def test_one_trailing_newline_is_dropped(file: Path, content: str, secret: str) -> None:
    file.write_bytes(content.encode())
    assert secret_key(f"file:{file}") == secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o700, 0o620, 0o660])
def test_a_file_that_others_can_reach_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    expected = (
        f"s3.secret_key = file:{file} (flag s3.secret_key): its mode is {mode:04o}, it must be 0600 or 0400: "
        f"run chmod 600 {file}"
    )
    assert refusal(f"file:{file}") == expected


def test_a_file_of_somebody_else_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(file, 4242, -1)
    else:  # only root can give files away: be somebody else ourselves
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "owned by user" in refusal(f"file:{file}")


def test_a_symbolic_link_leads_to_the_checked_file(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert secret_key(f"file:{link}") == "hunter2"
    file.chmod(0o644)
    assert "0644" in refusal(f"file:{link}")


def test_what_is_no_file_of_a_secret(file: Path) -> None:
    fifo = file.with_name("fifo")
    os.mkfifo(fifo, 0o600)
    assert "not a regular file" in refusal(f"file:{fifo}")  # and we do not hang on it
    assert "not a regular file" in refusal(f"file:{file.parent}")
    assert "No such file" in refusal(f"file:{file}x")
    assert "not a path" in refusal("file:/a\0b")
    file.write_bytes(b"\n")
    assert "it is empty" in refusal(f"file:{file}")
    file.write_bytes(b"\xff")
    assert "not UTF-8" in refusal(f"file:{file}")
    file.write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    assert f"longer than {MAX_SECRET_BYTES} bytes" in refusal(f"file:{file}")


def test_a_refused_secret_is_told_once() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(NO_FILE, {"database.dsn": "file:/nowhere", "kafka.sasl_password": "env:NOWHERE"}, {})
    assert [problem.field for problem in caught.value.problems] == ["kafka.sasl_password", "database.dsn"]


def test_a_secret_in_an_environment_variable() -> None:
    assert secret_key("env:MINIO_SECRET", MINIO_SECRET="hunter2") == "hunter2"
    assert secret_key("env:MINIO_SECRET", MINIO_SECRET="file:/x") == "file:/x"  # it is looked up once
    assert "environment variable MINIO_SECRET is not set" in refusal("env:MINIO_SECRET")


def test_a_systemd_credential(file: Path) -> None:
    file.chmod(0o440)  # as systemd makes them: the folder keeps others out
    assert secret_key("credential:secret", CREDENTIALS_DIRECTORY=str(file.parent)) == "hunter2"
    assert "LoadCredential=secret:" in refusal("credential:secret")
    assert "No such file" in refusal("credential:other", CREDENTIALS_DIRECTORY=str(file.parent))
    for name in ("../secret", "", "..", str(file)):
        assert "plain file name" in refusal(f"credential:{name}", CREDENTIALS_DIRECTORY=str(file.parent))


def test_a_credential_called_like_the_setting_is_used_when_nothing_is_configured(tmp_path: Path) -> None:
    (tmp_path / "database.dsn").write_text("postgresql://u:hunter2@db/v2td\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    config = load(NO_FILE, {}, environ)
    assert config.settings.database.dsn.get_secret_value() == "postgresql://u:hunter2@db/v2td"
    assert str(config.sources["database.dsn"]) == "credential database.dsn"
    config = load(NO_FILE, {"database.dsn": "postgresql://other/v2td"}, environ)
    assert config.settings.database.dsn.get_secret_value() == "postgresql://other/v2td"


SECRET_LINES = [
    ("s3", 'secret_key = "hunter2"\naccess_key = "key"'),
    ("kafka", 'sasl_password = "hunter2"'),
    ("database", 'dsn = "postgresql://u:hunter2@db/v2td"'),
    ("database", 'dsn = "postgresql://db/v2td?user=u&password=hunter2"'),
    ("database", 'read_dsn = "postgresql://u:hunter2@db/v2td"'),
]


@pytest.mark.parametrize(("section", "line"), SECRET_LINES)
@pytest.mark.parametrize("mode", [0o640, 0o644, 0o604])
def test_a_secret_in_a_config_file_that_others_can_read_is_refused(
    section: str, line: str, mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[{section}]\n{line}\n")
    path.chmod(mode)
    with pytest.raises(InvalidConfigError) as caught:
        load(path, {}, {})
    assert f"run chmod 600 {path}, or move it to a file and write file:" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    path.chmod(0o600)
    load(path, {}, {})


def test_a_dsn_without_a_password_and_references_may_be_read_by_all(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[database]\ndsn = "postgresql://u@db/v2td?sslmode=require"\n[kafka]\nsasl_password = "file:{file}"'
    )
    path.chmod(0o644)
    assert load(path, {}, {}).settings.kafka.sasl_password == SecretStr("hunter2")


# Never shown

PLACES = [
    ("[s3]\nsecret_key = 'hunter2'\nslots = 'x'", {}),
    ("[s3]\nsecret_key = ['hunter2']", {}),
    ("[s3]\nsecret_kye = 'hunter2'", {}),
    ("s3.secret_key.deeper = 'hunter2'", {}),
    ("secret_key = 'hunter2'", {}),
    ("s3 = 'hunter2'", {}),
    ("[secrets]\nkey = 'hunter2'", {}),
    ("[database]\ndsn = 'mysql://u:hunter2@db'", {}),
    ("[database]\ndsn = 'hunter2'", {}),
    ("[s3]\nendpoint_url = 'http://u:hunter2@minio:9000'", {}),
    ("[s3]\nendpoint_url = 'http://u:hunter2/@minio:9000'", {}),
    ("[kafka]\nbootstrap_servers = ['kafka://u:hunter2@broker']", {}),
    ("[s3]\nsecret_key = 'hunter2' 'x'", {}),
    ("", {"V2TD_S3_SECRET_KEY": "hunter2"}),
    ("", {"V2TD_DATABASE__DSN": "mysql://u:hunter2@db"}),
    ("", {"V2TD_KAFKA__SASL_PASSWORD": "hunter2", "V2TD_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}),
]


@pytest.mark.parametrize(("text", "environ"), PLACES)
def test_no_error_shows_a_secret(text: str, environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InvalidConfigError) as caught:
        load(path, {}, environ)
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + repr([vars(one) for one in error.problems])
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:pw@db:5432/v2td", "postgresql://u@db:5432/v2td"),
        ("postgresql://u@db/v2td", "postgresql://u@db/v2td"),
        ("postgres:///v2td?host=/run/postgresql", "postgres:///v2td?host=/run/postgresql"),
        ("postgresql://u:pw@a:1,b:2/v2td?sslmode=require", "postgresql://u@a:1,b:2/v2td?sslmode=require"),
        ("postgresql://db/v2td?password=pw&user=u", "postgresql://db/v2td?user=u"),
        ("postgresql://db/v2td?p%61ssword=pw", "postgresql://db/v2td"),
        ("postgresql://u:p@w@db/v2td", "postgresql://u@db/v2td"),
        ("postgresql://u:p/w@db/v2td", "**********"),  # a raw / in a password: not surely taken apart
        ("postgresql://u:p#w@db/v2td", "**********"),
        ("postgresql://u:[w@db/v2td", "**********"),
        ("password=pw host=db", "**********"),
        ("pw", "**********"),
    ],
)
def test_a_dsn_is_shown_without_its_password(dsn: str, shown: str) -> None:
    assert without_password(dsn) == shown


@given(user=st.text("abc", max_size=3), password=st.text(min_size=1), query=st.sampled_from(["", "?sslmode=require"]))
def test_no_password_is_left_in_a_dsn(user: str, password: str, query: str) -> None:
    marked = f"«{password}»"  # so that it is no part of the rest by chance
    shown = without_password(f"postgresql://{user}:{marked}@db/v2td{query}")
    assert "«" not in shown
    assert "»" not in shown


def test_redacted_settings_are_json_without_secrets() -> None:
    settings = Settings(
        database=DatabaseSettings(dsn=SecretStr("postgresql://u:hunter2@db/v2td")),
        s3=S3Settings(access_key="key", secret_key=SecretStr("hunter2")),
    )
    shown = redacted(settings)
    assert shown["database"]["dsn"] == "postgresql://u@db/v2td"
    assert shown["database"]["read_dsn"] is None
    assert shown["s3"]["secret_key"] == "**********"
    assert shown["kafka"]["sasl_password"] is None
    assert "hunter2" not in json.dumps(shown)
    assert shown.keys() == Settings.model_fields.keys()
