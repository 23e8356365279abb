"""Tokens for SASL OAUTHBEARER, made by whoever an operator installs: entry points of the group `v2td.kafka_tokens`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError, SaslAuthenticationFailed

from v2td.config import KafkaSettings
from v2td.errors import ServiceError

GROUP = "v2td.kafka_tokens"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750


class TokenError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """No token came. A KafkaError, since aiokafka's loops survive no other; its text holds nothing secret."""

    retriable = True


def token_provider(settings: KafkaSettings) -> AbstractTokenProvider:
    """Return what makes the tokens; ServiceError when the entry point is not there or cannot be used."""
    conn.OAuthAuthenticator = _Authenticator
    name = settings.sasl_token_provider
    found = entry_points(group=GROUP)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        hint = f"install the package that brings it; installed: {known}"
        raise ServiceError("make Kafka tokens", f"there is no token provider {name} (entry point of {GROUP})", hint)
    try:
        provider = found[name].load()(settings)
    except Exception as error:
        detail = f"the token provider {name} does not start: {type(error).__name__}"
        raise ServiceError("make Kafka tokens", detail, "see kafka.sasl_token_provider, and what it needs") from error
    if not isinstance(provider, AbstractTokenProvider):
        raise ServiceError(
            "make Kafka tokens", f"the token provider {name} returns no aiokafka.abc.AbstractTokenProvider", "mend it"
        )
    return _Guarded(name, provider, settings.sasl_token_seconds)


class _Authenticator(conn.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka has no types
    """As aiokafka's, which takes a broker's refusal for success and then the answers to come for something else."""

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if payload:  # a broker that accepts says nothing, RFC 7628
            status = re.search(rb'"status"\s*:\s*"([a-z_]{1,64})"', payload)
            raise SaslAuthenticationFailed(status[1].decode() if status else "it does not say why")
        step: tuple[bytes, bool] | None = await super().step(payload)
        return step


class _Guarded(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Asks a provider for tokens, and lets nothing but tokens and TokenErrors out.

    Errors go without their text: it may hold the provider's own credentials.
    """

    def __init__(self, name: str | None, provider: AbstractTokenProvider, seconds: float) -> None:
        self._name = name
        self._provider = provider
        self._seconds = seconds

    async def token(self) -> str:
        """Return a token; raises TokenError."""
        try:
            async with asyncio.timeout(self._seconds):
                token = await self._provider.token()
        except TimeoutError as error:
            raise TokenError(f"the token provider {self._name} was silent for {self._seconds:g} s") from error
        except Exception as error:
            raise TokenError(f"the token provider {self._name} failed: {type(error).__name__}") from error
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise TokenError(f"the token provider {self._name} returned what is no token")
        return token

    def extensions(self) -> Mapping[str, Any]:
        """Return what the provider sends beside the token."""
        extensions: Mapping[str, Any] = self._provider.extensions()
        return extensions
