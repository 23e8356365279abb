"""No secret is told: every secret setting is given, used and made to fail, then looked for wherever v2td speaks."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import psutil
import pytest
import typer.main
from aiohttp import web
from typer.testing import CliRunner

from tests.daemon.conftest import Daemon, World
from tests.transport.certificates import Certificates, make
from v2td import bundled
from v2td.cli.app import app
from v2td.config.definitions import DEFINITIONS
from v2td.failpoints import VARIABLE

pytestmark = pytest.mark.services

CLIP = next(each for each in bundled.recordings() if each.seconds < 30)
LINK_LOCAL = "169.254.169.254"


MORE_INSIDE = (
    "providers.openai.api_key",
    "providers.plugins.options",
    "s3.stores.secret_key",
    "cache.redis_url",
    "tracing.authorization",
    "webhooks.secret",
    "webhooks.old_secret",
)
PLUG = """
from v2td.providers import Capabilities

class Plug:
    model, fingerprint, concurrency, capabilities = None, "plug", 1, Capabilities()

    def __init__(self, name, options):
        self.name, self.options = name, options

    async def __aenter__(self):
        return self

    async def __aexit__(self, *details):
        pass

    async def transcribe(self, recording):
        raise RuntimeError(f"no luck with {self.options}")

    async def health(self):
        return None
"""


def canary() -> str:
    return f"canary-{secrets.token_hex(12)}"


def signing_canary() -> str:
    return f"whsec_{base64.b64encode(canary().encode()).decode()}"


def disguises(secret: str) -> set[str]:
    """The secret, and what it looks like in URLs, bytea columns, JSON and base64, wherever in it."""
    data = secret.encode()
    coded = {base64.b64encode(data[at : at + (len(data) - at) // 3 * 3]).decode() for at in range(3)}
    return {secret, quote(secret, safe=""), data.hex(), json.dumps(secret)[1:-1], *coded}


@dataclass
class Echo:
    """A web server that says back all that it is told, where reasons might quote it."""

    redirect_password: str
    heard: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        told = f"{request.path_qs} {dict(request.headers)}"
        self.heard.append(f"{request.scheme} {told}")
        match request.match_info["kind"]:
            case "good":
                return web.FileResponse(CLIP.path)
            case "denied":
                return web.Response(status=403, reason=told, text=f"<Error><Code>{told}</Code></Error>")
            case "text":
                return web.Response(text=told, headers={"Content-Type": "audio/wav; " + quote(told)})
            case _:
                away = f"http://u:{self.redirect_password}@{LINK_LOCAL}/?{request.query_string}"
                return web.Response(status=302, headers={"Location": away})

    async def refuse(self, request: web.Request) -> web.Response:
        told = f"{request.path_qs} {dict(request.headers)}"
        self.heard.append(told)
        return web.json_response({"error": {"message": told}}, status=401, reason=told)

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None) -> AsyncIterator[int]:
        application = web.Application()
        application.router.add_get("/{kind}", self.answer)
        application.router.add_post("/v1/audio/transcriptions", self.refuse)
        application.router.add_post("/v1/traces", self.refuse)
        application.router.add_post("/hook", self.refuse)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()


@dataclass
class SecretWorld(World):
    """A world of which everything secret is known: by setting, and what the URLs of messages hide."""

    echo: Echo = field(default_factory=lambda: Echo(canary()))
    ports: tuple[int, int] = (0, 0)  # http and https of the echo
    of_settings: dict[str, str] = field(default_factory=dict)
    of_urls: dict[str, str] = field(default_factory=lambda: {"query": canary(), "userinfo": canary()})
    tables: str = ""

    def config(self, **overrides: Any) -> Path:
        usual = {
            "fetch__allowed_ports": list(self.ports),
            "database__read_dsn": self.database.replace(
                self.of_settings["database.dsn"], self.of_settings["database.read_dsn"]
            ),
            "s3__secret_key": "env:CANARY_S3",
            "kafka__sasl_password": self.of_settings["kafka.sasl_password"],
            "admin__token": f"file:{self.folder}/token",
            "log__level": "debug",
            "webhooks__secret": self.of_settings["webhooks.secret"],
            "webhooks__old_secret": self.of_settings["webhooks.old_secret"],
            "webhooks__allowed_networks": ["127.0.0.0/8"],
            "webhooks__allowed_ports": list(self.ports),
            "webhooks__attempts": 2,
            "webhooks__initial_seconds": 0.1,
            "tracing__enabled": True,
            "tracing__protocol": "http",
            "tracing__endpoint": f"http://127.0.0.1:{self.ports[0]}",
            "tracing__authorization": f"Bearer {self.of_settings['tracing.authorization']}",
            "cache__results": True,
            "cache__redis_url": f"redis://:{self.of_settings['cache.redis_url']}@127.0.0.1:1/0",
        }
        path = super().config(**usual | overrides)
        path.write_text(f"{path.read_text()}\n{self.tables}")
        return path

    def messages(self) -> list[dict[str, str]]:
        query, userinfo = self.of_urls["query"], self.of_urls["userinfo"]
        urls = [
            f"{scheme}://127.0.0.1:{port}/{kind}?X-Amz-Signature={query}"
            for scheme, port in zip(("http", "https"), self.ports, strict=True)
            for kind in ("good", "denied", "text", "away")
        ]
        urls += [
            "s3://no-such-bucket/key",
            f"https://user:{userinfo}@127.0.0.1:{self.ports[1]}/a.wav",
            f"ftp://user:{userinfo}@example.com/a.wav?{query}",
            f"http://127.0.0.1:1/a.wav?{query}#{query}",
        ]
        urls.append("s3://elsewhere/key")
        jobs = [{"audio_url": each, "id": f"job {number}"} for number, each in enumerate(urls)]
        by_others = [{"audio_url": CLIP.path.as_uri(), "provider": each} for each in ("echo", "plug")]
        hook = f"http://127.0.0.1:{self.ports[0]}/hook?token={query}"
        return [each | {"webhook_url": hook} for each in jobs + by_others]

    def leaks(self, told: dict[str, str], *, of_urls: bool = True) -> list[str]:
        """Which secret is where; of messages', those of URLs are no news in copies of the record."""
        known = self.of_settings | (self.of_urls | {"redirect": self.echo.redirect_password} if of_urls else {})
        return [
            f"{name} in {where}"
            for where, text in told.items()
            for name, secret in known.items()
            if any(each in text for each in disguises(secret))
        ]


@pytest.fixture
async def secret_world(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecretWorld]:
    certificates = make(tmp_path)
    pem = certificates.client("right")
    fresh = (
        "database.read_dsn",
        "kafka.sasl_password",
        "admin.token",
        "fetch.hosts.bearer_token",
        "fetch.hosts.headers",
        "providers.openai.api_key",
        "providers.plugins.options",
        "s3.stores.secret_key",
        "cache.redis_url",
        "tracing.authorization",
    )
    of_settings = {
        "database.dsn": str(urlsplit(world.database).password),
        "s3.secret_key": world.services.s3_secret_key,
        "fetch.hosts.client_pem": pem.splitlines()[3],
        "kafka.ssl_client_pem": pem.splitlines()[4],
        **{key: canary() for key in fresh},
        **{key: signing_canary() for key in ("webhooks.secret", "webhooks.old_secret")},
    }
    monkeypatch.setenv("CANARY_S3", of_settings["s3.secret_key"])
    monkeypatch.setenv("CANARY_BEARER", of_settings["fetch.hosts.bearer_token"])
    for name, text in (("token", of_settings["admin.token"]), ("client.pem", pem)):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    ours = SecretWorld(**vars(world), of_settings=of_settings)
    async with AsyncExitStack() as stack:
        contexts = (None, _mutual_tls(certificates))
        http, https = [await stack.enter_async_context(ours.echo.listening(each)) for each in contexts]
        ours.ports = (http, https)
        headers = (
            f'bearer_token = "env:CANARY_BEARER"\nheaders = {{ X-Key = "{of_settings["fetch.hosts.headers"]}" }}\n'
        )
        mutual = f'client_pem = "file:{tmp_path}/client.pem"\nca_file = "{certificates.ca_file}"\n'
        ours.tables = (
            f'[[fetch.hosts]]\npattern = "127.0.0.1"\nscheme = "http"\nport = {http}\n{headers}'
            f'[[fetch.hosts]]\npattern = "127.0.0.1"\nport = {https}\n{headers}{mutual}'
            f'[[providers.openai]]\nname = "echo"\nbase_url = "http://127.0.0.1:{http}/v1"\n'
            f'api_key = "{of_settings["providers.openai.api_key"]}"\n'
            '[[providers.plugins]]\nname = "plug"\nentry_point = "plug"\n'
            f'options = {{ key = "{of_settings["providers.plugins.options"]}" }}\n'
            f'[[s3.stores]]\nname = "far"\nbuckets = ["elsewhere"]\nendpoint_url = "http://127.0.0.1:{http}"\n'
            f'access_key = "known"\nsecret_key = "{of_settings["s3.stores.secret_key"]}"\n'
        )
        monkeypatch.setenv("PYTHONPATH", str(_plugin(tmp_path / "plugin")))
        yield ours


def _plugin(folder: Path) -> Path:
    """Install a provider that says what it was told whenever it fails, which is always."""
    described = folder / "plug-1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[v2td.providers]\nplug = plug:Plug\n")
    (folder / "plug.py").write_text(PLUG)
    return folder


def _mutual_tls(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    server = certificates.folder / "server.pem"
    server.write_text(certificates.server("right"))
    context.load_cert_chain(server)
    return context


def test_every_secret_setting_has_its_canary(secret_world: SecretWorld) -> None:
    known = {each.key for each in DEFINITIONS.values() if each.secret}
    known |= {column.key for each in DEFINITIONS.values() for column in each.columns if column.secret}
    assert secret_world.of_settings.keys() == known
    found = secret_world.leaks({"config.toml": secret_world.config().read_text()})
    inside = ("database.dsn", "database.read_dsn", "kafka.sasl_password", "fetch.hosts.headers", *MORE_INSIDE)
    assert sorted(found) == sorted(f"{each} in config.toml" for each in inside)


@pytest.mark.parametrize("form", ["{}", "xy{}", "x{}"])
def test_disguises_are_seen_through(form: str) -> None:
    secret = canary()
    coded = base64.b64encode(form.format(secret).encode() + b"z").decode()
    assert any(each in coded for each in disguises(secret))


@pytest.mark.slow
async def test_a_working_daemon_tells_no_secret(secret_world: SecretWorld) -> None:
    jobs = secret_world.messages()
    await secret_world.submit(*jobs)
    async with secret_world.daemon() as daemon:
        await secret_world.until_finished(len(jobs), 90)
        async with asyncio.timeout(60):
            while len(await secret_world.rows("SELECT FROM webhooks WHERE state = 'dead'")) < len(jobs):
                await asyncio.sleep(0.1)
        told = await _endpoint(daemon, secret_world.of_settings["admin.token"])
        processes = [psutil.Process(daemon.process.pid), *psutil.Process(daemon.process.pid).children(recursive=True)]
        told["command lines"] = repr([each.cmdline() for each in processes])
        assert await daemon.terminate() == 0
    told["log"] = daemon.log.read_text()
    letters = await secret_world.dead_letter_records()
    told["dead letters' headers"] = repr([each.headers for each in letters])
    told |= await _rows(secret_world, "- 'payload' - 'url'")  # those of webhooks are kept whole
    copies = {"dead letters": repr([each.value for each in letters])} | await _rows(secret_world, "")

    # All were put to use …
    heard = "\n".join(secret_world.echo.heard)
    for scheme in ("http", "https"):
        for key in ("fetch.hosts.bearer_token", "fetch.hosts.headers"):
            (good,) = [each for each in secret_world.echo.heard if each.startswith(f"{scheme} /good")]
            assert secret_world.of_settings[key] in good, heard
    assert len(await secret_world.rows("SELECT FROM transcriptions")) == 2
    assert len(letters) == len(jobs) - 2
    assert "access_denied" in told["table failures"]
    assert all(told.values())
    assert "v2td_jobs_failed_total" in told["/metrics"]
    assert any(
        f"Bearer {secret_world.of_settings['providers.openai.api_key']}" in each for each in secret_world.echo.heard
    )
    assert any(
        f"Bearer {secret_world.of_settings['tracing.authorization']}" in each for each in secret_world.echo.heard
    )
    hooks = [each for each in secret_world.echo.heard if each.startswith("/hook?")]
    assert len(hooks) == 2 * len(jobs)
    assert all(each.count("v1,") == 2 for each in hooks), "each key signed"
    assert secret_world.leaks({"webhooks": "\n".join(hooks)}, of_urls=False) == []
    # … and none was told.
    assert secret_world.leaks(told) == []
    assert secret_world.leaks(copies, of_urls=False) == []


async def _endpoint(daemon: Daemon, token: str) -> dict[str, str]:
    told: dict[str, str] = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session:
        for path in ("/status", "/metrics", "/readyz", "/livez", "/openapi.json", "/nothing"):
            for bearer in (token, "wrong"):
                async with session.get(path, headers={"Authorization": f"Bearer {bearer}"}) as answer:
                    told[path] = told.get(path, "") + f"{answer.status} {answer.headers} {await answer.text()}"
    return told


async def _rows(world: World, less: str) -> dict[str, str]:
    tables = await world.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    names = [each["table_name"] for each in tables]
    return {
        f"table {name}": repr(await world.rows(f'SELECT to_jsonb(t) {less} AS row FROM "{name}" t')) for name in names
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_crash_tells_no_secret(secret_world: SecretWorld, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "pipeline.heard=raise")
    config = secret_world.config(log__format=form, testing__failpoints=True)
    await secret_world.submit(*secret_world.messages())
    code, told = await _v2td("run", "--config", config)
    assert code != 0
    assert "FailpointError" in told
    assert secret_world.leaks({"crash": told}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("check", "--json"), ("check", "--all"), ("check", "--json", "--all", "--offline"), ("run",), ("dlq", "list")],
)
async def test_what_cannot_connect_tells_no_secret(secret_world: SecretWorld, command: Sequence[str]) -> None:
    nobody = secret_world.database.replace(
        secret_world.of_settings["database.dsn"], secret_world.of_settings["admin.token"]
    )
    config = secret_world.config(
        kafka__security_protocol="SASL_SSL",
        kafka__sasl_mechanism="PLAIN",
        kafka__sasl_username="v2td",
        kafka__ssl_client_pem=f"file:{secret_world.folder}/client.pem",
        database__dsn=nobody,
        s3__access_key="nobody",
    )
    code, told = await _v2td(*command, "--config", config)
    assert code != 0 or "--offline" in command, told
    assert told
    assert "configuration file" not in told
    assert secret_world.leaks({" ".join(command): told}) == []
    if "--all" in command:
        assert "kafka.ssl_client_pem" in told
        assert "fetch.hosts" in told


async def _v2td(*arguments: str | Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "v2td", *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


def _commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(group, "commands", {})  # of click's groups
    return [path] + [each for name, command in inner.items() for each in _commands(command, (*path, name))]


def test_help_tells_no_secret(secret_world: SecretWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2TD_CONFIG", str(secret_world.config()))
    for key in ("kafka.sasl_password", "admin.token"):
        monkeypatch.setenv(DEFINITIONS[key].variable, secret_world.of_settings[key])
    commands = _commands(typer.main.get_command(app))
    assert ("dlq", "list") in commands
    told = {" ".join(each): CliRunner().invoke(app, [*each, "--help"]).output for each in commands}
    assert all("Usage" in each for each in told.values())
    assert secret_world.leaks(told) == []
