"""What a slot's process does about its place, in processes of their own: it is not undone."""

import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.engine.placement import openmp
from v2td.engine.topology import SlotPlan
from v2td.machine import parse_list

LOAD = """
import json, os, sys
from pathlib import Path
from v2td.engine.placement import take_place
from v2td.engine.topology import SlotPlan
assert "ctranslate2" not in sys.modules, "it would have read the variables of OpenMP already"
cpus, threads, node = json.loads(sys.argv[1])
if cpus:
    os.sched_setaffinity(0, cpus)
bound = take_place(SlotPlan(tuple(cpus), threads, node))
import numpy as np
from faster_whisper import WhisperModel
from v2td.bundled import model_folder
model = WhisperModel(str(model_folder()), compute_type="int8", cpu_threads=threads)
model.encode(np.zeros((80, 3000), np.float32))
masks = [
    next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("Cpus_allowed_list"))
    for status in Path("/proc/self/task").glob("*/status")
]
maps = Path("/proc/self/numa_maps")
print(json.dumps({"bound": bound, "masks": masks, "memory": maps.read_text() if maps.exists() else None}))
"""


def loaded(cpus: tuple[int, ...], threads: int, node: int | None = None) -> dict[str, object]:
    """What a process of that place says of itself when it has heard a window."""
    run = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps([cpus, threads, node])], capture_output=True, text=True, check=True
    )
    answer: dict[str, object] = json.loads(run.stdout)
    return answer


@pytest.mark.parametrize("threads", [1, 2])
def test_all_threads_have_the_cpus_of_the_slot(threads: int) -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0)))[:threads]
    masks = loaded(cpus, threads)["masks"]
    assert isinstance(masks, list)
    assert len(masks) > 1
    assert {frozenset(parse_list(mask)) for mask in masks} == {frozenset(cpus)}


def test_without_cpus_nothing_is_pinned() -> None:
    masks = loaded((), 2)["masks"]
    assert isinstance(masks, list)
    assert {frozenset(parse_list(mask)) for mask in masks} == {frozenset(os.sched_getaffinity(0))}


def test_memory_is_bound_to_the_node() -> None:
    cpu = min(os.sched_getaffinity(0))
    answer = loaded((cpu,), 1, node=0)
    memory = answer["memory"]
    if answer["bound"]:
        assert isinstance(memory, str), "a kernel without NUMA binds nothing"
        assert re.search(r"^\S+ bind:0 anon", memory, re.MULTILINE)
    else:
        assert "bind:0" not in str(memory)


def test_a_node_that_is_not_there_is_refused_and_harms_nothing() -> None:
    assert loaded((), 1, node=1023)["bound"] is False


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        (SlotPlan((3,), 1), {"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "close", "OMP_PLACES": "{3}"}),
        (SlotPlan((4, 6), 2), {"OMP_NUM_THREADS": "2", "OMP_PROC_BIND": "close", "OMP_PLACES": "{4,6}"}),
        (SlotPlan((), 3), {"OMP_NUM_THREADS": "3", "OMP_PROC_BIND": "false"}),
    ],
)
def test_openmp(slot: SlotPlan, expected: dict[str, str]) -> None:
    assert openmp(slot) == expected


@given(cpus=st.lists(st.integers(0, 1023), unique=True, max_size=40), threads=st.integers(1, 64))
def test_places_are_the_cpus(cpus: list[int], threads: int) -> None:
    said = openmp(SlotPlan(tuple(cpus), threads))
    assert [int(cpu) for cpu in re.findall(r"\d+", said.get("OMP_PLACES", ""))] == cpus
    assert said["OMP_NUM_THREADS"] == str(threads)
