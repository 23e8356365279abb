"""Webhooks as people look at them: whether somebody could be told, and one request to try that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from yarl import URL

from v2td.config import Settings
from v2td.errors import ConfigError, JobError, ServiceError
from v2td.fetch.guard import is_allowed
from v2td.fetch.urls import parse_http
from v2td.intake import Result
from v2td.messages import without_secrets
from v2td.webhooks import Answer
from v2td.webhooks.payload import rendered
from v2td.webhooks.post import in_our_words, open_poster, rules

TEST = "transcription.test"  # the type of what `v2td webhooks test` sends
_CURE = "see docs/webhooks.md: allowed_ports, allowed_hosts and allowed_networks of [webhooks]"


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a request; `seconds` from its beginning to the answer."""

    id: str
    answer: Answer
    seconds: float


async def send_example(settings: Settings, url: str) -> Tried:
    """Send a signed example past the guard, once; raises ServiceError where it cannot be signed."""
    if settings.webhooks.secret is None:
        raise ConfigError("webhooks.secret", "unset", "nothing can be signed: echo whsec_$(openssl rand -base64 32)")
    message_id = str(uuid4())
    example = Result(
        id=uuid4(),
        revision=0,
        status="transcribed",
        job_id="example",
        cluster="example",
        topic="example",
        partition=0,
        offset=0,
        record_index=0,
        audio_url="https://example.com/call.mp3",
        model=settings.engine.model,
        task="transcribe",
        language="en",
        audio_seconds=1.5,
        text="This is an example.",
    )
    body = rendered(TEST, datetime.now(UTC), example, {})
    async with open_poster(settings) as poster:
        begin = time.monotonic()
        answer = await poster.post(url, message_id, body)
    return Tried(message_id, answer, time.monotonic() - begin)


async def reach(settings: Settings) -> str:
    """Say where webhooks.url leads; nothing is sent. Raises ServiceError where the guard would let nothing through."""
    url = settings.webhooks.url
    assert url is not None
    try:
        source = parse_http(url, rules(settings))
    except JobError as error:
        raise ConfigError("webhooks.url", without_secrets(url), f"{in_our_words(error.reason)}; {_CURE}") from None
    try:
        found = await asyncio.get_running_loop().getaddrinfo(source.host, source.port)
    except OSError as error:
        raise ServiceError("webhooks.url", f"{source.host} could not be resolved: {error.strerror}") from None
    addresses = sorted({str(address[0]) for *_, address in found})
    allowed = [each for each in addresses if is_allowed(each, settings.webhooks.allowed_networks)]
    if not allowed:
        hint = f"{', '.join(addresses)}: private or reserved, and not in webhooks.allowed_networks; {_CURE}"
        raise ConfigError("webhooks.url", without_secrets(url), hint)
    return f"{URL(url).host} is at {', '.join(allowed)}; `v2td webhooks test` sends an example"
