"""What providers answer is looked at: times that are none, texts that are none, and order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.providers.given import segment
from v2td.errors import ProviderFailedError
from v2td.jobs import Heard, Word
from v2td.providers.heard import checked

HEARD = Heard((segment(0), segment(1)), (), "en", 0.9, "model")


def test_what_is_fine_stays_as_it_is() -> None:
    assert checked(HEARD) == HEARD
    assert checked(replace(HEARD, segments=())).segments == ()
    with_words = replace(segment(0), words=(Word(0, 0.5, "a", 0.9), Word(0.5, 0.5, "b", 0.9)))
    assert checked(replace(HEARD, segments=(with_words,))).segments == (with_words,)


def test_segments_are_put_in_order() -> None:
    assert checked(replace(HEARD, segments=(segment(5), segment(0), segment(2)))).segments == (
        segment(0),
        segment(2),
        segment(5),
    )


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ((segment(-0.1),), "from -0.1 s to 0.9 s"),
        ((segment(2, 1),), "from 2 s to 1 s"),
        ((segment(0, float("inf")),), "to inf s"),
        ((segment(float("nan"), 1),), "from nan s"),
        ((segment(0, text=b"bytes"),), "its text is bytes"),  # type: ignore[arg-type]  # as careless code does
        ((replace(segment(0), words=(Word(3, 1, "a", 0.9),)),), "from 3 s to 1 s"),
    ],
)
def test_nonsense_is_refused(segments: Any, told: str) -> None:
    with pytest.raises(ProviderFailedError, match=told):
        checked(replace(HEARD, segments=segments))


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_so_is_a_price_that_is_none(cost: float) -> None:
    with pytest.raises(ProviderFailedError, match="it charges"):
        checked(replace(HEARD, cost=cost))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": None}, "its model and language are NoneType and str"),
        ({"language": 5}, "its model and language are str and int"),
        ({"language_probability": "high"}, "its language's probability is str"),
        ({"cost": "5"}, "it charges '5'"),
        ({"timings": {"at": object()}}, "its timings are no JSON object"),
        ({"timings": []}, "its timings are no JSON object"),
        ({"timings": {"windows": None}}, "its timings' windows are something else"),
        ({"timings": {"windows": [[]]}}, "its timings' windows are something else"),
        ({"timings": {"windows": [{"start": 0.0, "seconds": 1.0}]}}, "its timings' windows are something else"),
        ({"timings": {"windows": [{"index": 0, "start": 0.0}]}}, "its timings' windows are something else"),
        (
            {"timings": {"windows": [{"index": 0, "start": 0, "seconds": 1, "batch": 0}]}},
            "its timings' windows are something else",
        ),
        ({"segments": None}, "its segments are something else"),
        ({"segments": ("text",)}, "its segments are something else"),
        ({"windows": (1,)}, "its windows are something else"),
        ({"segments": (replace(segment(0), words=("a",)),)}, "its words are something else"),  # type: ignore[arg-type]
        ({"segments": (segment("0", 1),)}, "its times are str and "),  # type: ignore[arg-type]
        ({"segments": (replace(segment(0), avg_logprob=None),)}, "its probabilities are no numbers"),  # type: ignore[arg-type]
        ({"segments": (replace(segment(0), channel=10**12),)}, "its channel is 1000000000000"),
    ],
)
def test_so_is_what_no_row_could_be_made_of(changes: dict[str, Any], told: str) -> None:
    """It would end the daemon when it is written."""
    with pytest.raises(ProviderFailedError, match=told):
        checked(replace(HEARD, **changes))


def test_so_is_anything_else() -> None:
    with pytest.raises(ProviderFailedError, match="it answers with NoneType"):
        checked(None)  # type: ignore[arg-type]  # likewise
