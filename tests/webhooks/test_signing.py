"""Signatures, judged by the specification's example and by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr, ValidationError

from tests.webhooks.conftest import new_secret
from v2td.config import Settings, WebhookSettings, redacted
from v2td.webhooks.signing import Signer

# From the specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = '{"test": 2432232314}'
AT = datetime.fromtimestamp(1614265330, UTC)


def test_the_example_of_the_specification() -> None:
    headers = Signer([SecretStr(SECRET)]).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, BODY)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_keys_sign_all_one_after_the_other() -> None:
    keys = [new_secret(24), new_secret(64)]
    body = "xin chào"
    headers = Signer([SecretStr(each) for each in keys]).headers("id", AT, body)
    by_hand = [
        hmac.new(base64.b64decode(each.removeprefix("whsec_")), f"id.1614265330.{body}".encode(), hashlib.sha256)
        for each in keys
    ]
    assert headers["webhook-signature"] == " ".join(
        f"v1,{base64.b64encode(each.digest()).decode()}" for each in by_hand
    )


@pytest.mark.parametrize("wrong", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8G", "whsec_" + "!" * 40, "whsec_"])
def test_what_is_no_key_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WebhookSettings(secret=SecretStr(wrong))
    assert "must be whsec_ and 24 to 64 bytes in base64: echo whsec_$(openssl rand" in str(caught.value)
    assert wrong.removeprefix("whsec_") not in str(caught.value).replace("whsec_ and", "") or wrong == "whsec_"


@pytest.mark.parametrize("size", [23, 65])
def test_keys_of_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(ValidationError, match="24 to 64 bytes"):
        WebhookSettings(old_secret=SecretStr(new_secret(size)), secret=SecretStr(SECRET))


def test_nobody_is_told_what_is_not_signed() -> None:
    with pytest.raises(ValidationError, match="set together with url"):
        WebhookSettings(url="https://example.com/")
    with pytest.raises(ValidationError, match="without a user name"):
        WebhookSettings(url="https://user:pass@example.com/", secret=SecretStr(SECRET))


def test_settings_are_shown_without_the_query_of_the_url() -> None:
    url = "https://example.com/hook?token=canary"
    settings = Settings(webhooks=WebhookSettings(url=url, secret=SecretStr(SECRET)))
    shown = json.dumps(redacted(settings))
    assert "https://example.com/hook?***" in shown
    assert "canary" not in shown
    assert SECRET not in shown
