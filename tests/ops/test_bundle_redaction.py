"""What a debug bundle leaves out: secrets in every form, URLs, what jobs are called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import Settings
from v2td.ops.bundle_redaction import MASK, Redaction

SECRET = 'Geheim/"ü"&nis'


def redaction(**sections: object) -> Redaction:
    return Redaction(Settings.model_validate(sections))


@pytest.mark.parametrize(
    "written",
    [SECRET, json.dumps(SECRET), json.dumps(SECRET, ensure_ascii=False), "Geheim%2F%22%C3%BC%22%26nis"],
)
def test_a_secret_is_masked_however_it_is_written(written: str) -> None:
    told = redaction(kafka={"sasl_password": SECRET}).text(f"before {written} after")
    assert "Geheim" not in told
    assert MASK in told
    assert told.startswith("before ")


def test_the_password_of_a_dsn_is_masked_by_itself() -> None:
    found = redaction(database={"dsn": "postgresql://v2td:s3cr%2Ft-word@db/v2td"})
    assert found.text("password s3cr/t-word, s3cr%2Ft-word") == f"password {MASK}, {MASK}"


def test_a_short_secret_garbles_no_words() -> None:
    found = redaction(database={"dsn": "postgresql://v2td:pass@db/v2td"})
    assert found.text("pass passed compass") == f"{MASK} passed compass"


def test_of_a_url_its_place_stays_and_in_the_log_not_even_that() -> None:
    found = redaction()
    assert found.text('"https://me:pw@api.example:8443/v1/key?token=x"') == '"https://api.example:8443/…"'
    assert found.text("http://127.0.0.1:9000") == "http://127.0.0.1:9000"
    assert found.log("fetched https://store.example/call-1.wav?sig=1 well") == "fetched https://… well\n"


def test_a_line_of_the_log_does_not_say_what_jobs_are_called() -> None:
    line = json.dumps({"event": "failed", "job": "0d6e", "job_id": "+84 123", "tenant": "acme", "reason": "gone"})
    told = json.loads(redaction().log(line))
    assert told == {"event": "failed", "job": "0d6e", "job_id": "…", "tenant": "…", "reason": "gone"}


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-21T23:40:43Z [info ] failed  job=0d6e job_id='call of Mrs Smith' tenant=acme-Smith reason=gone",
        "failed job_id=Smith, url='it\\'s Smith' reason=gone",
        'failed job_id="Mrs \\"Smith" reason=gone',
        '{"event": "failed", "job_id": "Smith", "reason": "gone", "metadata": {"of": ["Mrs", "Smith',
        '{"reason": "gone", "job_id": "Mrs Smith is cut he',
        "gone metadata={'of': 'Mrs Smith', 'text': 'Smith'}",
    ],
)
def test_nor_does_one_in_the_consoles_format_or_one_that_was_cut(line: str) -> None:
    told = redaction().log(line)
    assert "Smith" not in told
    assert "gone" in told


@given(st.text(min_size=16, alphabet=st.characters(codec="utf-8")), st.text(), st.text())
def test_no_long_secret_is_ever_left(secret: str, before: str, after: str) -> None:
    told = redaction(kafka={"sasl_password": secret}).value({"a": [before + secret + after]})
    assert secret not in json.dumps(told, ensure_ascii=False) or secret in MASK
