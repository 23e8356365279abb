"""Signatures as Standard Webhooks has them, by all the keys that count. Pure: the time comes in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class Signer:
    """Signs with the secret, and with the one before while receivers change over."""

    def __init__(self, secrets: Sequence[SecretStr]) -> None:
        self._keys = [Webhook(each.get_secret_value()) for each in secrets]

    def headers(self, message_id: str, at: datetime, body: str) -> dict[str, str]:
        """Return the headers of one attempt, which begins `at`, an aware time."""
        signatures = " ".join(key.sign(message_id, at, body) for key in self._keys)
        return {ID: message_id, TIMESTAMP: str(int(at.timestamp())), SIGNATURE: signatures}
