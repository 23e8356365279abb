import pytest
from multidict import CIMultiDict
from yarl import URL

from v2td.fetch.validators import Validator, place

HERE = URL("https://media.example.com/a.wav?token=1")


def said(**headers: str) -> Validator | None:
    return Validator.of(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), HERE)


def test_what_is_asked_the_next_time() -> None:
    validator = said(etag='"1"', cache_control="max-age=0")
    assert validator is not None
    assert validator.condition(HERE) == {"If-None-Match": '"1"'}
    assert validator.condition(HERE.with_path("/b.wav")) == {}  # where the same ETag may stand for other bytes
    assert validator.condition(HERE.with_query("token=2")) == {}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"last_modified": "Sat, 21 Nov 2026 12:01:00 GMT"},
        {"etag": 'W/"1"'},  # as good as the same is not the same
        {"etag": "1"},
        {"etag": '"1'},
        {"etag": '"1"2"'},
        {"etag": '"' + "x" * 1023 + '"'},
        {"etag": '"1"', "cache_control": "private, No-Store"},
        {"etag": '"1"', "vary": "Accept-Encoding, *"},
    ],
)
def test_what_tells_too_little(headers: dict[str, str]) -> None:
    assert said(**headers) is None


def test_no_store_in_a_second_header() -> None:
    headers = CIMultiDict([("ETag", '"1"'), ("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")])
    assert Validator.of(headers, HERE) is None


def test_a_signature_is_no_part_of_a_place() -> None:
    def signed(version: str, signature: str) -> URL:
        query = f"versionId={version}&X-Amz-Date={signature}&X-Amz-Expires=60&X-Amz-Signature={signature}"
        return URL(f"https://store.example/bucket/a.wav?{query}", encoded=True)

    assert place(signed("1", "abc")) == place(signed("1", "def"))
    assert place(signed("1", "abc")) != place(signed("2", "abc"))
    assert place(HERE) != place(HERE.with_query("token=2"))
    assert "token" not in place(HERE)
