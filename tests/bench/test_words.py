"""Word error rate: what counts as an error, and how much worse is too much."""

from __future__ import annotations

from bench.words import WordErrors, word_errors


def test_case_and_punctuation_are_no_errors() -> None:
    assert word_errors({"a": "Set an alarm, please."}, {"a": "set an alarm please"}) == WordErrors(0, 4)


def test_wrong_missing_and_added_words_are() -> None:
    spoken = {"a": "one two three", "b": "four five", "c": "six"}
    heard = {"a": "one too three", "b": "four", "c": "six seven"}
    assert word_errors(spoken, heard) == WordErrors(3, 6)


def test_a_text_that_did_not_come_is_wrong_in_every_word() -> None:
    assert word_errors({"a": "one two", "b": "three"}, {"b": "three"}) == WordErrors(2, 3)


def test_a_small_sample_may_have_two_more_wrong_words_and_no_third() -> None:
    reference = WordErrors(1, 50)
    assert not WordErrors(3, 50).is_worse_than(reference)
    assert WordErrors(4, 50).is_worse_than(reference)


def test_a_large_sample_may_be_one_percentage_point_worse() -> None:
    reference = WordErrors(100, 10_000)
    assert not WordErrors(200, 10_000).is_worse_than(reference)
    assert WordErrors(201, 10_000).is_worse_than(reference)
