"""A broker behind TLS: SASL with SCRAM, PLAIN and tokens, client certificates, and what is said when it stays shut."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider

from tests.services import kafka
from tests.services.build import build
from tests.services.processes import free_ports, stop
from tests.transport.certificates import KINDS, Certificates
from v2td.config import KafkaSettings
from v2td.errors import ServiceError
from v2td.intake import client_options, cluster_id, ensure_topic, tokens

PASSWORD = "correct-horse"
SECRET = "hunter2-hunter2"
LISTENERS = {"RIGHT": "SSL", "OTHERS": "SSL", "EXPIRED": "SSL", "MUTUAL": "SSL", "SASL": "SASL_SSL"}
MODULE = "org.apache.kafka.common.security"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Broker:
    """The ports of a broker's listeners, and who vouches for it."""

    ports: dict[str, int]
    certificates: Certificates

    def settings(self, listener: str, **values: Any) -> KafkaSettings:
        usual = {
            "bootstrap_servers": [f"127.0.0.1:{self.ports[listener]}"],
            "security_protocol": LISTENERS[listener],
            "ssl_ca_file": self.certificates.ca_file,
        }
        return KafkaSettings.model_validate(usual | values)


@pytest.fixture(scope="module")
def broker(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    log = folder / "kafka.log"
    plain, controller, *ports = free_ports(2 + len(LISTENERS))
    broker = Broker(dict(zip(LISTENERS, ports, strict=True)), certificates)
    shown = dict.fromkeys(LISTENERS, "right") | {"OTHERS": "another host's", "EXPIRED": "expired"}
    served = [f"PLAINTEXT://127.0.0.1:{plain}", *(f"{name}://127.0.0.1:{at}" for name, at in broker.ports.items())]
    protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"} | LISTENERS
    properties = kafka.PROPERTIES | {
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": ",".join([*served, f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(served),
        "listener.security.protocol.map": ",".join(f"{name}:{each}" for name, each in protocols.items()),
        "log.dirs": str(folder / "log"),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl.plain.sasl.jaas.config": f"{MODULE}.plain.PlainLoginModule required "
        f'user_v2td="{PASSWORD}";',
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{MODULE}.scram.ScramLoginModule required;",
        "listener.name.sasl.oauthbearer.sasl.jaas.config": f"{MODULE}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(certificates.ca_file),
    }
    for name, kind in shown.items():
        keystore = folder / f"{name}.pem"
        keystore.write_text(certificates.server(kind))
        properties[f"listener.name.{name.lower()}.ssl.keystore.type"] = "PEM"
        properties[f"listener.name.{name.lower()}.ssl.keystore.location"] = str(keystore)
    node = kafka.Node(build().kafka, folder, plain)
    user = f"SCRAM-SHA-512=[name=v2td,password={PASSWORD}]"
    kafka.format_storage(
        node, properties, kafka.new_cluster_id(), log=log, quorum=["--standalone", "--add-scram", user]
    )
    process = kafka.launch(node, log=log)
    try:
        asyncio.run(kafka.ready(node, process, log=log))
        yield broker
    finally:
        stop(process)


async def opens(settings: KafkaSettings) -> None:
    """A record goes there and comes back, by the clients that v2td makes."""
    assert await cluster_id(settings)
    topic = f"topic-{secrets.token_hex(6)}"
    await ensure_topic(settings, topic)
    producer = AIOKafkaProducer(**client_options(settings), acks="all")
    consumer = AIOKafkaConsumer(topic, **client_options(settings), group_id=topic, auto_offset_reset="earliest")
    await producer.start()
    try:
        await consumer.start()
        await producer.send_and_wait(topic, b"value")
        assert (await asyncio.wait_for(consumer.getone(), 20)).value == b"value"
    finally:
        await consumer.stop()
        await producer.stop()


async def refusal(settings: KafkaSettings) -> str:
    """Why the daemon would not start; without a secret, whatever it is."""
    with pytest.raises(ServiceError) as caught:
        await cluster_id(settings)
    await asyncio.sleep(0.2)  # aiokafka does not wait for the end of a connection that was refused
    assert SECRET not in str(caught.value)
    return str(caught.value)


# Certificates of the brokers


async def test_the_right_certificate(broker: Broker) -> None:
    await opens(broker.settings("RIGHT"))


@pytest.mark.parametrize(
    ("listener", "told"),
    [("OTHERS", "certificate is not valid for '127.0.0.1'"), ("EXPIRED", "certificate has expired")],
    ids=KINDS[1:],
)
async def test_wrong_certificates(listener: str, told: str, broker: Broker) -> None:
    error = await refusal(broker.settings(listener))
    assert "TLS with 127.0.0.1:" in error
    assert told in error


async def test_a_broker_that_nobody_vouches_for(broker: Broker) -> None:
    assert "unable to get local issuer certificate" in await refusal(broker.settings("RIGHT", ssl_ca_file=None))
    settings = broker.settings("RIGHT", ssl_ca_file=broker.certificates.wrong_ca_file)
    assert "unable to get local issuer certificate" in await refusal(settings)


async def test_an_authority_that_cannot_be_read(broker: Broker) -> None:
    missing = broker.certificates.folder / "missing.pem"
    error = await refusal(broker.settings("RIGHT", ssl_ca_file=missing))
    assert f"kafka.ssl_ca_file = {missing}: No such file" in error


async def test_tls_where_there_is_none_and_the_other_way_round(broker: Broker) -> None:
    error = await refusal(broker.settings("RIGHT", security_protocol="PLAINTEXT"))
    assert "no broker at 127.0.0.1:" in error
    assert "security_protocol" in error


# Client certificates


async def test_mutual_tls(broker: Broker) -> None:
    await opens(broker.settings("MUTUAL", ssl_client_pem=broker.certificates.client("right")))


@pytest.mark.parametrize(
    ("client", "told"),
    [
        (None, "it asks us for one"),
        ("a stranger's", "it refuses our certificate"),
        ("expired", "it refuses our certificate"),
    ],
)
async def test_mutual_tls_with_wrong_certificates(client: str | None, told: str, broker: Broker) -> None:
    certificate = client and broker.certificates.client(client)
    error = await refusal(broker.settings("MUTUAL", ssl_client_pem=certificate))
    assert told in error
    assert "ssl_client_pem" in error


async def test_a_client_certificate_that_is_none(broker: Broker) -> None:
    error = await refusal(broker.settings("MUTUAL", ssl_client_pem=SECRET))
    assert "kafka.ssl_client_pem" in error


# Passwords


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_passwords(mechanism: str, broker: Broker) -> None:
    user = {"sasl_mechanism": mechanism, "sasl_username": "v2td"}
    await opens(broker.settings("SASL", **user, sasl_password=PASSWORD))
    error = await refusal(broker.settings("SASL", **user, sasl_password=SECRET))
    assert "authentication failed: 127.0.0.1:" in error
    assert "refuses user v2td" in error


async def test_no_password_is_sent_to_a_stranger(broker: Broker) -> None:
    wrong = {"sasl_mechanism": "PLAIN", "sasl_username": "v2td", "sasl_password": PASSWORD}
    settings = broker.settings("SASL", **wrong, ssl_ca_file=broker.certificates.wrong_ca_file)
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(settings)


# Tokens


def unsecured(subject: str = "v2td", seconds: float = 300) -> str:
    """A JSON web token without a signature, as the broker's own handler for tests takes it."""
    now = time.time()
    claims = {"sub": subject, "iat": now + min(0, seconds) - 1, "exp": now + seconds}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """What an operator installs: its client's id and secret are the user and the password."""

    def __init__(self, settings: KafkaSettings) -> None:
        assert settings.sasl_username is not None
        self._user = settings.sasl_username

    async def token(self) -> Any:
        match self._user:
            case "silent":
                await asyncio.sleep(60)
            case "failing":
                raise RuntimeError(f"the secret {SECRET} was refused")
            case "odd":
                return f"{SECRET}\x01auth=admin"
            case "nothing":
                return None
            case "expired":
                return unsecured(seconds=-60)
        return unsecured(self._user)


def broken(_settings: KafkaSettings) -> Tokens:
    raise ValueError(SECRET)


def no_provider(_settings: KafkaSettings) -> object:
    return object()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points as a package brings them; loaded as all are."""
    found = [EntryPoint(each, f"{__name__}:{each}", tokens.GROUP) for each in ("Tokens", "broken", "no_provider")]
    monkeypatch.setattr(tokens, "entry_points", lambda group: EntryPoints(found).select(group=group))


def with_tokens(broker: Broker, user: str = "v2td", **values: Any) -> KafkaSettings:
    usual = {"sasl_mechanism": "OAUTHBEARER", "sasl_token_provider": "Tokens", "sasl_username": user}
    return broker.settings("SASL", **usual | {"sasl_password": SECRET} | values)


@pytest.mark.usefixtures("installed")
async def test_tokens(broker: Broker) -> None:
    await opens(with_tokens(broker))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("expired", "authentication failed: 127.0.0.1:"),
        ("silent", "the token provider Tokens was silent for 0.5 s"),
        ("failing", "the token provider Tokens failed: RuntimeError"),
        ("odd", "the token provider Tokens returned what is no token"),
        ("nothing", "the token provider Tokens returned what is no token"),
    ],
)
async def test_tokens_that_do_not_open(user: str, told: str, broker: Broker) -> None:
    error = await refusal(with_tokens(broker, user, sasl_token_seconds=0.5))
    assert told in error
    assert "sasl_token_provider" in error


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("provider", "told"),
    [
        ("Missing", "there is no token provider Missing (entry point of v2td.kafka_tokens)"),
        ("broken", "the token provider broken does not start: ValueError"),
        ("no_provider", "returns no aiokafka.abc.AbstractTokenProvider"),
    ],
)
async def test_token_providers_that_are_none(provider: str, told: str, broker: Broker) -> None:
    assert told in await refusal(with_tokens(broker, sasl_token_provider=provider))
