"""Where fuzzing begins: good inputs of every kind, and the words of their languages."""

from __future__ import annotations

import ipaddress
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.messages.examples import AWS_TEST_EVENT, MINIO_EVENT
from tests.speech.sounds import SHAPES, encode, silence, wav_header
from v2td.messages import message_schema

JOB = {
    "audio_url": "https://example.com/call.mp3",
    "id": "call-1",
    "languages": ["en", "vi"],
    "prompt": "names: \u00c1nh, \ud83d\ude00",
    "beam_size": 5,
    "word_timestamps": True,
    "channels": "split",
    "priority": 0,
    "tenant": None,
    "expires_at": "2030-01-31T12:00:00.5+07:00",
    "metadata": {"deep": [[{"x": 1e-3}], -0.0, 12345678901234567890], "text": '\\ " \u0001'},
}
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "datacontenttype": "application/json"}

URLS = (
    "https://example.com/a/../b;c?x=%2F&y=é#f",
    "http://user:password@example.com:8080/",
    "http://[2001:db8::1%25eth0]:80/x",
    "http://[::ffff:127.0.0.1]/",
    "http://0x7f000001/",
    "http://127.1\\@a.example.com/",
    "HTTPS://A.EXAMPLE.COM.:443",
    "http://１２７.0.0.1/",
    "s3://bucket/key with ? and #/x",
    "file://localhost/srv/recordings/%2e%2e/a.wav",
    "data:audio/wav;base64,AAAA",
    "ftp://example.com/",
)
ADDRESSES = ("127.0.0.1", "8.8.8.8", "::1", "fe80::1%eth0", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:4860:4860::8888")

# Longest input, of some targets what makes a run quick, of some what they take.
MAX_BYTES: Mapping[str, int] = MappingProxyType(
    {"message": 4096, "notification": 512, "url": 512, "address": 64, "container": 32_768}
)
WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "message": (
            *message_schema()["properties"],
            *(
                "Records",
                "eventName",
                "s3:ObjectCreated:",
                "s3",
                "bucket",
                "name",
                "object",
                "key",
                "specversion",
                "1.0",
            ),
            *(
                "data",
                "data_base64",
                "source",
                "type",
                "null",
                "true",
                "\\u0000",
                "\\ud800",
                "\\udc00",
                "1e999",
                "-0",
                '":',
            ),
        ),
        "notification": ("%00", "%2F", "+", "..", "/", "?", "#", "@", "\\"),
        "url": (
            "http://",
            "https://",
            "s3://",
            "file://",
            "@",
            "[::",
            "%25",
            "0x",
            "\\",
            ".example.com",
            "127.0.0.1",
            "#",
        ),
        "address": ("::ffff:", "64:ff9b::", "2002:", "2001:0:", "%", "127.0.0.1", "10.", "169.254."),
        "container": (
            *("RIFF", "WAVE", "fmt ", "data", "fLaC", "OggS", "OpusHead", "ID3", "TAG", "ftyp", "moov", "moof", "mdat"),
            *(
                "trak",
                "stsd",
                "stts",
                "stsc",
                "stco",
                "co64",
                "esds",
                "wave",
                "FORM",
                "AIFF",
                "COMM",
                "SSND",
                "caff",
                "#!AMR",
            ),
            *(
                "\x1aE\xdf\xa3",
                "\xff\xfb",
                "\xff\xf1",
                "G@",
                ".snd",
                "FLV\x01",
                "MAC ",
                "wvpk",
                "TTA1",
                "0&\xb2u",
                "vorbis",
            ),
        ),
    }
)


def seeds(target: str) -> list[bytes]:
    """Return the inputs that a target's corpus starts with."""
    return {"message": _messages, "notification": _keys, "url": _urls, "address": _addresses, "container": _files}[
        target
    ]()


def _messages() -> list[bytes]:
    values = [JOB, MINIO_EVENT, AWS_TEST_EVENT, EVENT | {"data": JOB}, EVENT | {"data_base64": "e30="}, {}]
    return [json.dumps(each).encode() for each in values]


def _keys() -> list[bytes]:
    return [b"recordings\0hello w\xc3\xb6rld.wav", b"b-1\0a/../b?c#d@e", b"B.u_c\0\r\n%00"]


def _urls() -> list[bytes]:
    return [each.encode() for each in URLS]


def _addresses() -> list[bytes]:
    texts = [each.encode() for each in ADDRESSES]
    return texts + [ipaddress.ip_address(each.partition("%")[0]).packed for each in ADDRESSES]


def _files() -> list[bytes]:
    sound = silence(0.2)
    sound[::7] = 900
    with tempfile.TemporaryDirectory() as folder:
        files = [encode(sound, Path(folder, f"a.{shape}"), shape).read_bytes() for shape in SHAPES]
    cut = files[-1][:64]  # of Matroska: FFmpeg calls that an error of the disk
    return [*files, cut, wav_header(64, rate=8000, channels=2) + bytes(64), b"#EXTM3U\nhttp://127.0.0.1/a.ts\n"]


def words(target: str) -> str:
    """Return the words of the target's language as libFuzzer wants them."""
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")) + '"\n' for word in WORDS[target])
