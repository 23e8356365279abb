"""The seed's providers and three rules, as docs/providers.md has them, with real ones behind each name."""

from __future__ import annotations

import json
import struct
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import World
from tests.daemon.test_journey import word_error_rate
from tests.daemon.test_openai_journey import TOKEN, api
from tests.providers.test_router import LARGE, SEED, SMALL, ZH
from tests.speech.sounds import read, wav_header
from v2td.bundled import Recording, ggml_file, recordings

pytestmark = pytest.mark.slow  # two daemons, two models of whisper.cpp

MB = 1_000_000
ENGLISH: Recording = next(each for each in recordings() if each.name == "en-01.flac")


def padded(recording: Recording, size_bytes: int, path: Path) -> Path:
    """Write it as a WAV of that size: a chunk that says nothing lies before the sound, and takes no room on disk."""
    samples = read(recording.path).tobytes()
    header = wav_header(len(samples))
    form, data = header[12:36], header[36:]  # without RIFF, its size and WAVE
    junk = size_bytes - len(header) - len(samples) - 8
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", size_bytes - 8, b"WAVE") + form)
        file.write(struct.pack("<4sI", b"JUNK", junk))
        file.seek(junk, 1)
        file.write(data + samples)
    assert path.stat().st_size == size_bytes
    return path


async def test_each_job_goes_where_the_seed_sends_it(
    world: World, topic: Callable[..., Awaitable[str]], tmp_path: Path
) -> None:
    seed: dict[str, Any] = tomllib.loads(SEED)
    middle = padded(ENGLISH, 10 * MB, tmp_path / "middle.wav")
    large = padded(ENGLISH, 100 * MB, tmp_path / "large.wav")
    jobs = {
        "small": {"audio_url": f"{world.web}/{ENGLISH.name}", "language": "en"},
        "detected": {"audio_url": f"{world.web}/{ENGLISH.name}"},
        "middle": {"audio_url": middle.as_uri(), "language": "en"},
        "large": {"audio_url": large.as_uri(), "language": "en"},
        "chinese": {"audio_url": f"{world.web}/{ENGLISH.name}", "language": "zh"},
        "large-chinese": {"audio_url": large.as_uri(), "language": "zh"},
    }
    for table, size in zip(seed["providers"]["whisper_cpp"], ("base", "tiny"), strict=True):
        table |= {"model": str(ggml_file()), "model_name": size, "threads": 1}
    async with api(world, await topic(name="api")) as other:
        seed["providers"]["openai"][0] |= {
            "base_url": f"http://127.0.0.1:{other.port}/v1",
            "api_key": TOKEN,
            "model": "demo",
        }
        async with world.daemon(
            providers__whisper_cpp=seed["providers"]["whisper_cpp"],
            providers__openai=seed["providers"]["openai"],
            routing__rules=seed["routing"]["rules"],
            routing__fallback=seed["routing"]["fallback"],
            fetch__file_roots=[str(tmp_path)],
        ) as daemon:
            await world.submit(*({"id": name, **job} for name, job in jobs.items()))
            await world.until_finished(len(jobs), 100)
            assert await daemon.terminate() == 0
    rows = {row["job_id"]: row for row in await world.rows("SELECT * FROM transcriptions")}
    routes = {name: json.loads(row["route"]) for name, row in rows.items()}
    assert {name: (row["provider"], row["model"], routes[name]["rule"]) for name, row in rows.items()} == {
        "small": ("whisper_cpp", "base", SMALL),
        "detected": ("whisper_cpp", "base", SMALL),
        "middle": ("local", "demo", None),
        "large": ("openai", "demo", LARGE),
        "chinese": ("whisper_cpp_zh", "tiny", ZH),
        "large-chinese": ("whisper_cpp_zh", "tiny", ZH),
    }
    for name in ("small", "detected", "middle", "large"):
        assert word_error_rate(ENGLISH.text, rows[name]["text"]) == 0, name
        assert rows[name]["language"] == "en"
    assert routes["large"]["chain"] == ["openai", "local"]
    assert routes["detected"]["why"][0] == f"{ZH}: its language is en, not zh"
    assert {tuple(each["tried"]) for each in routes.values()} == {()}
