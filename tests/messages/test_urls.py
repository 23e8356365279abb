from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.messages import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/a.wav", "https://example.com/a.wav"),
        ("https://user:pass@example.com:8443/a@b.wav?sig=1#x", "https://example.com:8443/a@b.wav"),
        ("HTTP://u:p@ss@h", "HTTP://h"),
        ("https://h/a.wav#secret", "https://h/a.wav"),
        ("ftp://u:p@h/a?x", "ftp://h/a"),
        ("http:/u:p@h/x", "http:/h/x"),
        ("http:\\\\u:p@h/x", "http:\\\\h/x"),
        ("//u:p@h/x?y", "//h/x"),
        ("http://[::1/x?y", "http://[::1/x"),
        ("s3://bucket/q?x#frag@.wav", "s3://bucket/q?x#frag@.wav"),
        ("s3://key:secret@bucket/a?b", "s3://bucket/a?b"),
        ("file:///srv/calls/a?b#c.wav", "file:///srv/calls/a?b#c.wav"),
        ("not a url", "not a url"),
        ("", ""),
    ],
)
def test_secrets_are_dropped_and_the_rest_stays(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@given(st.text(alphabet="abc:/?#@.[]\\", max_size=40))
def test_what_is_shown_has_no_userinfo_and_showing_it_again_changes_nothing(rest: str) -> None:
    shown = without_secrets(f"https://{rest}")
    assert not {"?", "#"} & set(shown)
    assert "@" not in shown.removeprefix("https://").lstrip("/\\").replace("\\", "/").partition("/")[0]
    assert without_secrets(shown) == shown
