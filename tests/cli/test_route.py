"""`v2td route` as people run it, with the second seed's three rules."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.providers.test_router import LARGE, SEED, SMALL, ZH
from v2td.bundled import recordings

RECORDING = next(each for each in recordings() if each.name == "en-01.flac")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(SEED)
    return file


async def test_a_file_and_its_language(v2td: Run, config: Path) -> None:
    answer = await v2td("route", "--config", config, "--file", RECORDING.path, "--language", "zh")
    assert (answer.code, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [
        f"whisper_cpp_zh, by the rule {ZH}",
        "  when that fails: local",
        f"  {ZH}: fits",
        f"  {SMALL}: fits, but {ZH} comes before it",
        f"  {LARGE}: its size is {RECORDING.path.stat().st_size} bytes, not from 100000000 up",
    ]


async def test_what_is_missing_is_named(v2td: Run, config: Path) -> None:
    answer = await v2td("route", "--config", config, "--file", RECORDING.path)
    assert answer.code == 1
    assert answer.stdout.startswith(f"undecided, one of whisper_cpp_zh, whisper_cpp: the rule {ZH} needs --language\n")
    answer = await v2td("route", "--config", config, "--json", "--language", "none")
    assert answer.code == 1
    told = json.loads(answer.stdout)
    assert (told["decided"], told["needs"]["facts"], told["needs"]["rule"]) == (False, ["size"], SMALL)
    assert told["needs"]["targets"] == ["whisper_cpp", "openai", "local"]


async def test_as_json(v2td: Run, config: Path) -> None:
    answer = await v2td("route", "--config", config, "--json", "--size", "200000000", "-l", "en")
    assert answer.code == 0
    told = json.loads(answer.stdout)
    assert (told["decided"], told["rule"], told["target"], told["chain"]) == (
        True,
        LARGE,
        "openai",
        ["openai", "local"],
    )
    assert told["facts"] == {"size_bytes": 200_000_000, "seconds": None, "language": "en"}
    assert len(told["why"]) == 3


RULES = """
[kafka]
topics = ["jobs", "vietnamese"]
topic_languages = ["vietnamese=vi"]
[routing]
rules = [
  {name = "long", provider = "api", duration_seconds = [3.0], priority = 3},
  {name = "vi", provider = "api", language = "vi", priority = 2},
  {name = "urgent", provider = "api", job_priority = [0], tenant = "a", metadata_key = "kind", metadata_value = "call"},
]
[[providers.openai]]
name = "api"
base_url = "https://api.example.com/v1"
"""


async def test_the_duration_is_found_out_where_a_rule_hinges_on_it(v2td: Run, config: Path) -> None:
    config.write_text(RULES)
    answer = await v2td("route", "--config", config, "--json", "--file", RECORDING.path, "-l", "en")
    told = json.loads(answer.stdout)
    assert (answer.code, told["rule"]) == (0, "long" if RECORDING.seconds >= 3 else None)
    assert told["facts"]["seconds"] == pytest.approx(RECORDING.seconds, abs=0.1)
    answer = await v2td("route", "--config", config, "--json", "--file", RECORDING.path, "-l", "en", "--seconds", "1")
    told = json.loads(answer.stdout)
    assert (told["rule"], told["facts"]["seconds"]) == (None, 1)


async def test_all_else_that_rules_ask_for(v2td: Run, config: Path) -> None:
    config.write_text(RULES)
    known = ("route", "--config", config, "--seconds", "1")
    answer = await v2td(*known, "--topic", "vietnamese")
    assert answer.stdout.startswith("api, by the rule vi\n")
    answer = await v2td(*known, "--set", "engine.default_language=vi")
    assert answer.stdout.startswith("api, by the rule vi\n")
    more = ("--language", "en", "--priority", "0", "--tenant", "a", "--metadata")
    answer = await v2td(*known, *more, "kind=call")
    assert answer.stdout.startswith("api, by the rule urgent\n")
    answer = await v2td(*known, *more, "kind=memo")
    assert answer.stdout.splitlines()[0] == "local, no rule fits it"
    assert answer.stdout.splitlines()[-1] == "  urgent: its metadata's kind is not call"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--language", "klingon"), "'klingon' is none of Whisper's languages"),
        (("--metadata", "kind"), "'kind' is not KEY=VALUE"),
        (("--file", "a.wav", "--url", "https://example.com/a.wav"), "give one of --file and --url"),
    ],
)
async def test_usage(v2td: Run, arguments: tuple[str, ...], told: str) -> None:
    answer = await v2td("route", *arguments)
    assert answer.code == 2
    assert told in answer.stderr


async def test_what_is_no_recording(v2td: Run, config: Path, tmp_path: Path) -> None:
    config.write_text(RULES)
    answer = await v2td("route", "--config", config, "--file", tmp_path / "absent.wav")
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr == f"{tmp_path}/absent.wav: not_found: cannot be read: No such file or directory\n"
    text = tmp_path / "text.wav"
    text.write_text("no sound here")
    answer = await v2td("route", "--config", config, "--file", text)
    assert answer.code == 1
    assert answer.stderr.startswith(f"{text}: not_audio: ")


async def test_rules_that_cannot_be_relied_on_are_told(v2td: Run, config: Path) -> None:
    other = RULES.replace("priority = 3", "priority = 2")
    other = other.replace('provider = "api", language', 'provider = "local", language')
    config.write_text(other)
    answer = await v2td("route", "--config", config)
    assert answer.code == 1
    assert "routing.rules[1]" in answer.stderr
    assert "long and vi both fit a recording of 3 or more s, language vi, and name different providers" in answer.stderr


async def test_a_url_is_fetched_where_a_rule_hinges_on_it(v2td: Run, config: Path) -> None:
    url = RECORDING.path.as_uri()
    answer = await v2td("route", "--config", config, "--json", "--url", url, "--language", "zh")
    assert json.loads(answer.stdout)["facts"]["size_bytes"] is None
    answer = await v2td("route", "--config", config, "--url", url, "--language", "en")
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"{url}: url_forbidden: ")
    roots = f"fetch.file_roots={RECORDING.path.parent}"
    answer = await v2td("route", "--config", config, "--set", roots, "--json", "--url", url, "--language", "en")
    told = json.loads(answer.stdout)
    assert (told["rule"], told["facts"]["size_bytes"]) == (SMALL, RECORDING.path.stat().st_size)
