import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import FetchSettings
from v2td.errors import ErrorClass, JobError
from v2td.fetch.urls import FileSource, HttpSource, S3Source, parse

SETTINGS = FetchSettings()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.wav",
        "//example.com/a.wav",
        "ftp://example.com/a.wav",
        "data:audio/wav;base64,AAAA",
        "javascript:alert(1)",
        "gopher://example.com/",
        "http:example.com",
        "http:///a.wav",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com:8080/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:/",
        "http://example.com:８０/",
        "http://example.com:80:80/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://1.2.3.4.5/",
        "http://127.0.0.1.0x/",
        "http://１２７.0.0.1/",
        "http://ex\u00adample.com/",
        "http://münchen.example/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://[127.0.0.1]/",
        "http://a..b/",
        "http://-a.example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "example/",
        "http://example.com/a\r\nHost: evil",
        "http://example.com/a\tb",
        "http://example.com/\0",
        " http://example.com/",
        "http://example.com/" + "a" * 9000,
        "http://example.com/\ud800",
        "http%3A//example.com/",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "s3:/bucket/key",
        "s3://user@bucket/key",
        "s3://../key",
        "file:relative",
        "file://host/a.wav",
        "file:///a.wav?x",
        "file:///a.wav#x",
        "file:///a%00.wav",
    ],
)
def test_forbidden(url: str) -> None:
    with pytest.raises(JobError) as caught:
        parse(url, SETTINGS)
    assert caught.value.error_class is ErrorClass.URL_FORBIDDEN
    assert "secret" not in caught.value.reason


@pytest.mark.parametrize(
    ("url", "host", "port", "sent"),
    [
        ("http://example.com", "example.com", 80, "/"),
        ("HTTPS://Example.COM:443/A", "example.com", 443, "/A"),
        ("http://8.8.8.8/a#b", "8.8.8.8", 80, "/a"),
        ("http://[2001:4860::8888]/a", "2001:4860::8888", 80, "/a"),
        ("https://h.example/a=b;c/../d%2Fe?X=%2B%2f;", "h.example", 443, "/a=b;c/../d%2Fe?X=%2B%2f;"),
        ("http://h.example/a b/ü.wav", "h.example", 80, "/a%20b/%C3%BC.wav"),
        ("http://xn--mnchen-3ya.example/a", "xn--mnchen-3ya.example", 80, "/a"),
        ("http://xn--mnchen-3ya.example/ä", "xn--mnchen-3ya.example", 80, "/%C3%A4"),
        ("http://[2001:4860:0:0::0088]/ä", "2001:4860::88", 80, "/%C3%A4"),
        ("http://h.example?x=a@b:c", "h.example", 80, "/?x=a@b:c"),
    ],
)
def test_http(url: str, host: str, port: int, sent: str) -> None:
    source = parse(url, SETTINGS)
    assert isinstance(source, HttpSource)
    assert (source.host, source.port) == (host, port)
    assert source.target.port == port
    assert source.target.raw_path_qs == sent


def test_ports_and_hosts() -> None:
    settings = FetchSettings(allowed_ports=(8443,), allowed_hosts=("a.example", "*.B.example", "::1"))
    for good in ("A.example", "a.example.", "x.b.example", "y.x.b.example", "[::1]", "[0:0::1]"):
        parse(f"https://{good}:8443/", settings)
    for bad in ("https://b.example:8443/", "https://xb.example:8443/", "https://c.example:8443/", "https://a.example/"):
        with pytest.raises(JobError):
            parse(bad, settings)
    parse("http://any.example:12345/", FetchSettings(allowed_ports=()))


def test_host_list_knows_the_whole_label() -> None:
    settings = FetchSettings(allowed_hosts=("*.b.example",))
    for bad in ("http://evilb.example/", "http://b.example.evil/", "http://b.example/"):
        with pytest.raises(JobError):
            parse(bad, settings)


@pytest.mark.parametrize(
    ("pattern", "urls"),
    [
        ("9.9.9.9", "9.9.9.9 [::ffff:9.9.9.9] [::FFFF:0909:0909] [64:ff9b::9.9.9.9] [2002:909:909::] [::9.9.9.9]"),
        ("::ffff:9.9.9.9", "9.9.9.9 [::ffff:9.9.9.9]"),
        ("Bad.Example.", "bad.example BAD.example."),
        ("*.Bad.Example.", "x.bad.example x.BAD.example."),
        ("2001:4860:0:0::0088", "[2001:4860::88] [2001:4860:0000::88]"),
        ("[2001:4860::88]", "[2001:4860::88]"),
    ],
)
def test_a_host_is_denied_however_both_are_written(pattern: str, urls: str) -> None:
    settings = FetchSettings(denied_hosts=(pattern,))
    for host in urls.split():
        with pytest.raises(JobError, match="denied_hosts"):
            parse(f"http://{host}/", settings)
    for host in ("9.9.9.8", "[::ffff:9.9.9.8]", "badexample", "[2001:4860::89]", "bad.example.org"):
        parse(f"http://{host}/", settings)


def test_a_mapped_address_is_allowed_like_the_address() -> None:
    settings = FetchSettings(allowed_hosts=("9.9.9.9",))
    parse("http://[::ffff:9.9.9.9]/", settings)
    with pytest.raises(JobError):
        parse("http://[64:ff9b::9.9.9.9]/", settings)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_s3_keys_are_verbatim(key: str) -> None:
    assert parse(f"s3://my-bucket/{key}", SETTINGS) == S3Source("my-bucket", key)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60))
def test_file_urls_of_any_path(name: str) -> None:
    path = Path("/audio") / name.replace("/", "_")
    assert parse(path.as_uri(), SETTINGS) == FileSource(path)
    assert parse(path.as_uri().replace("file:///", "file://localhost/"), SETTINGS) == FileSource(path)


@given(st.text(alphabet="ahtps:/@?#[]%.\\0123456789xé ", max_size=40))
def test_parse_decides_every_text(rest: str) -> None:
    """Whatever comes after http://: either forbidden, or aiohttp will connect to the host that was checked."""
    try:
        source = parse(f"http://{rest}", FetchSettings(allowed_ports=()))
    except JobError:
        return
    assert isinstance(source, HttpSource)
    connected = str(source.target.raw_host)
    with suppress(ValueError):
        connected = str(ip_address(connected))
    assert (connected.lower(), source.target.port) == (source.host, source.port)
    assert source.target.user is None


@given(st.text(max_size=60))
def test_parse_decides_every_path(path: str) -> None:
    try:
        source = parse(f"http://h.example/{path}", SETTINGS)
    except JobError:
        return
    assert isinstance(source, HttpSource)
    assert re.fullmatch(r"/[\x21-\x7e]*", source.target.raw_path_qs)
