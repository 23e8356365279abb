"""What has to hold for any bytes; each target raises when it does not."""

from __future__ import annotations

import ipaddress
import json
import math
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote_plus, urlsplit

import numpy as np

from v2td.config import FetchSettings
from v2td.config.settings import MessageSettings
from v2td.errors import ErrorClass, JobError
from v2td.fetch import urls
from v2td.fetch.guard import ForbiddenAddressError, is_allowed, socket_factory
from v2td.fetch.urls import HttpSource, S3Source
from v2td.jobs import SAMPLE_RATE, Coordinates, Failure, Job, SourceRecord
from v2td.messages import Known, jobs_of, without_secrets
from v2td.messages.storable import is_storable
from v2td.speech.demux import Accepted, PcmReader

AT = Coordinates("cluster", "jobs", 0, 7, 1_760_000_000_000)
MAX_REASON = 16_384  # characters: one quotes the URL
ACCEPTED = Accepted(max_seconds=5.0)
UNREADABLE = (ErrorClass.NOT_AUDIO, ErrorClass.NO_AUDIO, ErrorClass.BAD_PARAMS, ErrorClass.FORMAT_FORBIDDEN)
OPEN = FetchSettings(allowed_ports=())
LISTED = FetchSettings(allowed_ports=(), allowed_hosts=("*.example.com",))


def message(data: bytes) -> None:
    """Any record becomes jobs and failures that Postgres, Kafka and a terminal can take; nothing is raised."""
    record = SourceRecord(None, data, ())
    for unknown_keys in ("reject", "ignore"):
        settings = MessageSettings(unknown_keys=unknown_keys)
        outcomes = jobs_of(record, AT, settings=settings, known=Known(frozenset({"base"})))
        assert outcomes == jobs_of(record, AT, settings=settings, known=Known(frozenset({"base"}))), (
            "not the same twice"
        )
        assert len({each.coordinates for each in outcomes}) == len(outcomes), "two jobs with one row"
        for outcome in outcomes:
            _check_outcome(outcome)


def _check_outcome(outcome: Job | Failure) -> None:
    if isinstance(outcome, Failure):
        _check_refusal(JobError(outcome.error_class, outcome.reason), ErrorClass.BAD_MESSAGE, ErrorClass.BAD_FIELD)
        texts = [outcome.job_id, outcome.audio_url]
    else:
        options = outcome.options
        texts = [outcome.job_id, outcome.audio_url, outcome.tenant, options.prompt, options.hotwords]
        assert is_storable(outcome.metadata), outcome
        kept = json.dumps(outcome.metadata, allow_nan=False)
        assert json.loads(kept) == outcome.metadata, outcome
        assert outcome.expires_at is None or math.isfinite(outcome.expires_at.timestamp()), outcome
        shown = without_secrets(outcome.audio_url)
        assert without_secrets(shown) == shown, outcome
    assert all(each is None or is_storable(each) for each in texts), outcome


def _check_refusal(error: JobError, *classes: ErrorClass) -> None:
    """A reason has to fit a row, a header, a log line and a terminal."""
    assert error.error_class in classes, error
    assert 0 < len(error.reason) <= MAX_REASON, error
    assert is_storable(error.reason), error
    assert error.reason.isprintable(), error


def notification(data: bytes) -> None:
    """What a bucket notification names is what is fetched: that bucket, that key, nothing else."""
    bucket, _, key = data.decode("utf-8", "replace").partition("\0")
    entry = {
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
    }
    value = json.dumps({"Records": [entry]}).encode()
    (outcome,) = jobs_of(
        SourceRecord(None, value, ()), AT, settings=MessageSettings(), known=Known(frozenset({"base"}))
    )
    _check_outcome(outcome)
    if isinstance(outcome, Failure):
        return
    try:
        source = urls.parse(outcome.audio_url, OPEN)
    except JobError as error:
        _check_refusal(error, ErrorClass.URL_FORBIDDEN)
        return
    assert source == S3Source(bucket, key), (source, bucket, key)


def url(data: bytes) -> None:
    """A URL is forbidden, or all readers of URLs agree on its host, which is listed and no disguised address."""
    text = data.decode("utf-8", "surrogateescape")
    for settings in (OPEN, LISTED):
        try:
            source = urls.parse(text, settings)
        except JobError as error:
            _check_refusal(error, ErrorClass.URL_FORBIDDEN)
            continue
        if isinstance(source, HttpSource):
            _check_http(text, source, listed=settings is LISTED)


def _check_http(text: str, source: HttpSource, *, listed: bool) -> None:
    target = source.target
    assert target.scheme in ("http", "https"), text
    assert target.user is None, text
    assert target.password is None, text
    assert target.port == source.port, text
    other = urlsplit(text)
    assert other.username is None, text
    assert _plain(other.hostname or "") == source.host, text
    assert _plain(target.host or "") == source.host, text
    if listed:
        assert source.host.removesuffix(".").endswith(".example.com"), text
    try:  # inet_aton(3) takes 127.1, 0x7f000001 and 0177.0.0.1 for addresses, as do resolvers
        packed = socket.inet_aton(source.host)
    except OSError:
        return
    assert str(ipaddress.IPv4Address(packed)) == source.host, text


def _plain(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def address(data: bytes) -> None:
    """The guard lets through what the standard library calls global, and of IPv6 only what holds no other IPv4."""
    text = data.decode("latin-1")
    addresses = [text]
    if len(data) >= 4:
        addresses.append(str(ipaddress.IPv4Address(data[:4])))
    if len(data) >= 16:
        addresses.append(str(ipaddress.IPv6Address(data[:16])))
    for each in addresses:
        allowed = is_allowed(each)
        try:
            ip = ipaddress.ip_address(each.partition("%")[0])
        except ValueError:
            assert not allowed, each
            continue
        if allowed:
            for inner in (ip, *_inside(ip)):
                assert inner.is_global, (each, inner)
                assert not inner.is_multicast, (each, inner)
        _check_factory(ip, allowed=allowed)


def _inside(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip.packed[:12] in (bytes(12), bytes.fromhex("0064ff9b") + bytes(8)):
        found.append(ipaddress.IPv4Address(ip.packed[12:]))
    return [each for each in found if each is not None]


def _check_factory(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, *, allowed: bool) -> None:
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        socket_factory(())((family, socket.SOCK_STREAM, 0, "", (str(ip), 80))).close()
    except ForbiddenAddressError:
        assert not allowed, ip
    else:
        assert allowed, ip


def container(data: bytes) -> None:
    """Any file is read as PCM within bounds, or refused with a reason; only decoding itself may fail in other ways."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".bin") as file:
        file.write(data)
        file.flush()
        for split in (False, True):
            try:
                reader = PcmReader(Path(file.name), ACCEPTED, split=split)
            except JobError as error:
                _check_refusal(error, *UNREADABLE)
                continue
            except OSError as error:  # which says that a disk of ours is at fault, and would end the daemon
                raise AssertionError("no disk is at fault") from error
            with reader:
                _read_all(reader)


def _read_all(reader: PcmReader) -> None:
    assert 1 <= reader.channels <= ACCEPTED.max_channels, reader.channels
    try:
        while not reader.ended:
            piece = reader.read(SAMPLE_RATE)
            assert piece.dtype == np.int16, piece.dtype
            assert piece.shape[1] == reader.channels, piece.shape
    except JobError as error:
        _check_refusal(error, ErrorClass.TOO_LONG)
    assert math.isfinite(reader.damage.missing_seconds), reader.damage
    assert reader.damage.missing_seconds >= 0, reader.damage


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {"message": message, "notification": notification, "url": url, "address": address, "container": container}
)
