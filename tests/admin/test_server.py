import asyncio
import os
import socket
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.serving import EXPOSED, STATUS, Daemon, port_of, raw, served
from v2td import metrics
from v2td.admin import serve
from v2td.config import AdminSettings
from v2td.errors import ServiceError


async def test_the_probes_say_why_not(daemon: Daemon) -> None:
    async with served(daemon) as session:
        for path, field in (("/livez", "not_alive"), ("/readyz", "not_ready")):
            async with session.get(path) as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            setattr(daemon, field, "a slot hangs")
            async with session.get(path) as answer:
                assert (answer.status, await answer.text()) == (503, "a slot hangs\n")
            setattr(daemon, field, None)


async def test_status_is_json_of_what_the_daemon_says_now(daemon: Daemon) -> None:
    async with served(daemon) as session:
        async with session.get("/status") as answer:
            assert answer.content_type == "application/json"
            assert await answer.json() == STATUS
        daemon.not_ready = "stopping"
        async with session.get("/status") as answer:
            assert (await answer.json())["ready"] is False


async def test_metrics_are_what_prometheus_reads() -> None:
    metrics.JOBS_FINISHED.labels("transcribed").inc(0)
    async with served(Daemon()) as session, session.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert families["v2td_jobs_finished"].type == "counter"
    assert families["v2t_transcription_duration_seconds"].type == "histogram"
    assert families["v2td_loop_lag_seconds"].documentation


@pytest.mark.parametrize(
    "path", ["/", "/debug", "/status/", "//status", "/x/../status", "/%2e%2e/status", "/status%00"]
)
async def test_there_is_nothing_else(daemon: Daemon, path: str) -> None:
    async with served(daemon) as session:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await raw(session, request.encode())).startswith(b"HTTP/1.1 404 ")


async def test_it_listens_on_loopback_only_and_stops_with_the_context() -> None:
    async with serve(AdminSettings(port=0), Daemon().view()) as url:
        assert url.startswith("http://127.0.0.1:")
        port = int(url.rsplit(":", 1)[1])
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.2", port)
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_ipv6_has_its_brackets(daemon: Daemon) -> None:
    async with served(daemon, host="::1") as session, session.get("/status") as answer:
        assert answer.status == 200
        assert str(answer.url).startswith("http://[::1]:")


async def test_a_client_that_says_nothing_does_not_hold_up_the_end() -> None:
    async with asyncio.timeout(5):
        async with serve(AdminSettings(port=0), Daemon().view()) as url:
            _reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
            writer.write(b"GET /status HTTP/1.1\r\n")
            await writer.drain()
        writer.close()


async def test_a_port_in_use_is_our_fault_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"127.0.0.1:{port}: .*in use") as caught:
            async with serve(AdminSettings(port=port), Daemon().view()):
                pytest.fail("two servers on one port")
    assert "admin.port" in caught.value.hint


async def test_an_address_that_is_not_ours_is_our_fault() -> None:
    with pytest.raises(ServiceError, match="listen for the admin endpoint"):
        async with serve(AdminSettings.model_validate({**EXPOSED, "host": "192.0.2.1", "port": 0}), Daemon().view()):
            pytest.fail("that address belongs to nobody")


async def test_the_token_in_the_clear_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    async with serve(AdminSettings.model_validate({**EXPOSED, "port": 0}), Daemon().view()):
        assert "the token crosses the network as it is" in capsys.readouterr().out
    async with serve(AdminSettings(port=0), Daemon().view()):
        assert "the token" not in capsys.readouterr().out


class TestUnixSocket:
    async def test_it_is_for_this_user_alone_and_gone_afterwards(self, tmp_path: Path, daemon: Daemon) -> None:
        path = tmp_path / "admin.sock"
        previous = os.umask(0)
        try:
            async with serve(AdminSettings(socket=path), daemon.view()) as url:
                assert url == f"unix:{path}"
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                async with (
                    aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
                    session.get("http://localhost/status") as answer,
                ):
                    assert (answer.status, await answer.json()) == (200, STATUS)
        finally:
            os.umask(previous)
        assert not path.exists()

    async def test_one_that_a_killed_daemon_left_is_replaced(self, tmp_path: Path, daemon: Daemon) -> None:
        path = tmp_path / "admin.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        async with serve(AdminSettings(socket=path), daemon.view()):
            _reader, writer = await asyncio.open_unix_connection(str(path))
            writer.close()

    async def test_one_that_is_listened_on_is_not(self, tmp_path: Path, daemon: Daemon) -> None:
        settings = AdminSettings(socket=tmp_path / "admin.sock")
        async with serve(settings, daemon.view()):
            with pytest.raises(ServiceError, match="in use") as caught:
                async with serve(settings, daemon.view()):
                    pytest.fail("two servers on one socket")
            assert "admin.socket" in caught.value.hint
            _reader, writer = await asyncio.open_unix_connection(str(settings.socket))
            writer.close()

    async def test_a_file_of_that_name_is_left_alone(self, tmp_path: Path, daemon: Daemon) -> None:
        path = tmp_path / "precious"
        path.write_text("data")
        with pytest.raises(ServiceError, match="in use"):
            async with serve(AdminSettings(socket=path), daemon.view()):
                pytest.fail("it took the place of a file")
        assert path.read_text() == "data"

    @pytest.mark.parametrize("name", ["no/such/folder", "x" * 200])
    async def test_a_path_that_cannot_be_is_our_fault(self, tmp_path: Path, daemon: Daemon, name: str) -> None:
        with pytest.raises(ServiceError, match=r"No such file|too long"):
            async with serve(AdminSettings(socket=tmp_path / name), daemon.view()):
                pytest.fail("it listens nowhere")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    """The settings of a certificate for 127.0.0.1."""
    issued = authority.issue_cert("127.0.0.1")
    files = {"tls_cert_file": tmp_path / "cert.pem", "tls_key_file": tmp_path / "key.pem"}
    issued.cert_chain_pems[0].write_to_path(files["tls_cert_file"])
    issued.private_key_pem.write_to_path(files["tls_key_file"])
    files["tls_key_file"].chmod(0o600)
    return files


class TestTls:
    async def test_a_client_that_trusts_the_authority_is_served(
        self, daemon: Daemon, certificate: dict[str, Path], authority: trustme.CA
    ) -> None:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with served(daemon, **certificate) as session, session.get("/status", ssl=context) as answer:
            assert (answer.status, answer.url.scheme) == (200, "https")

    async def test_who_does_not_trust_it_or_speaks_plain_is_not(
        self, daemon: Daemon, certificate: dict[str, Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with served(daemon, **certificate) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get("/status")
            with pytest.raises(aiohttp.ClientError):
                await session.get(str(session._base_url).replace("https", "http") + "status")
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(session))
                writer.write(b"\x16\x03\x01 half a hello")
                writer.close()
                await reader.read()
        assert not caplog.records  # anybody can do this, and must not fill the log

    async def test_old_versions_are_refused(
        self, daemon: Daemon, certificate: dict[str, Path], authority: trustme.CA
    ) -> None:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with served(daemon, **certificate) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("/status", ssl=context)

    async def test_a_key_that_anybody_may_read_is_refused(self, daemon: Daemon, certificate: dict[str, Path]) -> None:
        certificate["tls_key_file"].chmod(0o644)
        with pytest.raises(ServiceError, match="anybody may read it") as caught:
            async with served(daemon, **certificate):
                pytest.fail("it served with a public key")
        assert caught.value.hint == f"run chmod o= {certificate['tls_key_file']}"

    @pytest.mark.parametrize("wrong", ["missing", "garbage", "of another", "encrypted"])
    async def test_files_that_do_not_fit_are_our_fault(
        self, daemon: Daemon, certificate: dict[str, Path], authority: trustme.CA, wrong: str
    ) -> None:
        key = certificate["tls_key_file"]
        if wrong == "missing":
            key.unlink()
        elif wrong == "garbage":
            key.write_text("garbage")
        elif wrong == "of another":
            authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(key)
        else:
            key.write_bytes(_encrypted(key.read_bytes()))
        with pytest.raises(ServiceError, match=str(key)) as caught:
            async with served(daemon, **certificate):
                pytest.fail("it served without its key")
        assert "admin.tls_cert_file" in caught.value.hint


def _encrypted(pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
