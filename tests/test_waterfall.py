from v2td.stages import Step
from v2td.waterfall import Bar, bars

WINDOW = {"index": 0, "slot": 1, "start": 0.9, "seconds": 0.5, "flags": ["logprob"], "batch": 2}


def test_what_is_remembered_is_where_it_was() -> None:
    steps = [Step("fetch", 0.0, 0.1, 1), Step("fetch", 2.0, 0.2, 2), Step("write", 3.0, 0.25, 2)]
    assert bars({"attempts": 2, "fetch": 0.2, "windows": [WINDOW]}, steps, committed=4.0) == [
        Bar("fetch", 0.0, 0.1, 1),
        Bar("window", 0.9, 0.5, 2, window=0, slot=1, batch=2, flags=("logprob",)),
        Bar("fetch", 2.0, 0.2, 2),
        Bar("write", 3.0, 0.25, 2),
        Bar("commit", 3.25, 0.75, 2),
    ]


def test_a_row_alone_says_how_long_but_not_when() -> None:
    assert bars({"fetch": 1.0, "queue": 0.5, "prepare": 2.0, "transcribe": 3.0, "flags": []}) == [
        Bar("fetch", 0.0, 1.0, 1),
        Bar("queue", 1.0, 0.5, 1),
        Bar("prepare", 1.5, 2.0, 1),
        Bar("transcribe", 1.5, 3.0, 1),
    ]


def test_rows_of_before_and_of_failures_have_less() -> None:
    assert bars({}) == []
    assert bars({"windows": [{"index": 3, "slot": -1, "start": 0, "seconds": 0}]}) == [
        Bar("window", 0.0, 0.0, 1, window=3, slot=-1)
    ]
