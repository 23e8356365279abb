"""The documents say what is there: links, commands, settings, metrics, files; and no machine's or registry's names."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client.metrics import MetricWrapperBase

from v2td import metrics
from v2td.cli.app import app
from v2td.config import Settings, load
from v2td.config.definitions import DEFINITIONS, sections
from v2td.jobs import Coordinates, Job, SourceRecord
from v2td.messages import Known, jobs_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
IN_LINE = re.compile(r"`([^`\n]+)`")

each_document = pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.name))


def test_there_is_something_to_check() -> None:
    assert len(DOCS) >= 6
    assert len(list(commands(README))) >= 8
    assert len(metric_names()) >= 30


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    text = FENCED.sub("", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{document.name}: {target}"


@each_document
def test_commands_and_their_flags_exist(document: Path) -> None:
    root: Any = typer.main.get_command(app)
    for line in commands(document):
        command, *rest = line.split()
        assert command == "v2td"
        found, flags = root, {"--version", "--help"}
        while rest and hasattr(found, "commands") and not rest[0].startswith("-"):
            name = rest.pop(0).strip(",.:;")
            assert name in found.commands, f"{document.name}: {line}"
            found = found.commands[name]
            flags = {flag for each in found.params for flag in each.opts} | {"--help"}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert used <= flags, f"{document.name}: {line}"


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^ *(?:sudo )?|[`(&] *(?:sudo )?)make ([a-z-]+)", document.read_text(), re.MULTILINE)
    assert set(named) <= targets


@each_document
def test_settings_exist(document: Path) -> None:
    named = {
        word
        for code in IN_LINE.findall(FENCED.sub("", document.read_text()))
        for word in re.findall(rf"(?<![\w./-])(?:{'|'.join(sections())})\.[a-z][a-z_0-9]*(?![\w./(])", code)
    }
    assert named <= set(DEFINITIONS) | {f"{module}.py" for module in sections()}


@each_document
def test_files_exist(document: Path) -> None:
    named = {
        path
        for code in IN_LINE.findall(FENCED.sub("", document.read_text()))
        for path in re.findall(r"(?<![\w./-])(?:v2td|docs|tests|systemd|\.ci)/[\w./-]*", code)
    }
    missing = [path for path in sorted(named) if not (ROOT / path).exists()]
    assert missing == []


def test_every_metric_is_explained_with_its_labels() -> None:
    rows = re.findall(r"^\| `(v2td?_\w+)` \|(.*?)\| (.+) \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    documented = {name: tuple(IN_LINE.findall(labels)) for name, labels, _ in rows}
    assert documented == metric_names()


@each_document
def test_metrics_named_in_passing_exist(document: Path) -> None:
    named = set(re.findall(r"\bv2td?_[a-z_]+_(?:total|seconds|bytes|mbps|records|windows)\b", document.read_text()))
    assert named <= set(metric_names())


def test_the_config_in_the_readme_is_valid(tmp_path: Path) -> None:
    example, *_ = fenced(README, "toml")
    file = tmp_path / "my.toml"
    file.write_text(example)
    file.chmod(0o600)
    settings = load(file, {}, {"S3_SECRET": "secret"}).settings
    assert settings.s3.secret_key is not None
    assert settings.s3.secret_key.get_secret_value() == "secret"
    assert set(tomllib.loads(example)) <= set(sections())


@pytest.mark.parametrize("document", [README, ROOT / "docs/storage.md"], ids=lambda path: str(path.name))
def test_all_configs_are_valid(document: Path) -> None:
    examples = fenced(document, "toml")
    assert len(examples) >= 2
    for example in examples:
        Settings.model_validate(tomllib.loads(example))


def test_the_job_in_the_readme_is_one() -> None:
    (example,) = fenced(README, "json")
    record = SourceRecord(None, example.encode(), ())
    (job,) = jobs_of(
        record, Coordinates("c", "t", 0, 0, 0), settings=Settings().messages, known=Known(frozenset({"base"}))
    )
    assert isinstance(job, Job)
    assert job.metadata == json.loads(example)["metadata"]


def test_no_registry_and_no_machine_is_named() -> None:
    hosts = ("p[y]pi", "python[h]osted", "maven", "golang", "debian", "npmjs", "docker", "huggingface", "hf")
    # In pieces, so that this file does not find itself.
    forbidden = re.compile(
        rf"(?:[\w-]+\.)*(?:{'|'.join(hosts)})\.(?:org|com|io|co)\b" + r"|(?<![\w.~-])/(?:work|root|home/\w+)" + "/"
    )
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    names = [name for name in tracked.split("\0") if name and (ROOT / name).is_file()]
    assert len(names) > 100
    found = []
    for name in names:
        content = (ROOT / name).read_bytes()
        if b"\0" not in content:  # text
            found += [f"{name}: {match[0]}" for match in forbidden.finditer(content.decode())]
    assert found == []


def metric_names() -> dict[str, tuple[str, ...]]:
    """Names as they are scraped, and labels, of all that v2td/metrics.py defines."""
    names = {}
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            (family,) = each.describe()
            names[family.name + ("_total" if family.type == "counter" else "")] = tuple(each._labelnames)
    return names


def commands(document: Path) -> Iterator[str]:
    """Every `v2td …` in a block or in a line, without what comes before or behind it in a shell."""
    text = document.read_text().replace("\\\n", " ")
    for _, block in FENCED.findall(text):
        for line in block.splitlines():
            if match := re.match(r"^ *(?:\$ )?(?:sudo -u v2td )?(?:\S*/)?(v2td [a-z-].*?)(?: {2,}|[|>#]|$)", line):
                yield match[1]
    for code in IN_LINE.findall(FENCED.sub("", text)):
        if match := re.match(r"^(?:sudo -u v2td )?(?:\S*/)?(v2td (?:[a-z]|--).*)$", code):
            yield match[1]


def fenced(document: Path, language: str) -> list[str]:
    return [
        re.sub(r"^ {3}", "", code, flags=re.MULTILINE)
        for name, code in FENCED.findall(document.read_text())
        if name == language
    ]


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
