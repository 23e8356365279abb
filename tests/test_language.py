"""The vote on a job's language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.language import Ballot, elect

languages = st.sampled_from(["en", "vi", "fr", "de"])
ballots = st.lists(
    st.builds(
        Ballot,
        st.dictionaries(languages, st.floats(0, 0.25), max_size=4).map(lambda each: tuple(each.items())),
        st.floats(0, 30),
    ),
    max_size=5,
)


def winner(given: list[Ballot]) -> tuple[str, float]:
    elected = elect(given)
    assert elected is not None
    return elected[0], round(elected[1], 6)


def test_one_ballot_decides_alone_even_without_speech() -> None:
    assert winner([Ballot((("vi", 0.9), ("en", 0.1)), 12.0)]) == ("vi", 0.9)
    assert winner([Ballot((("vi", 0.9), ("en", 0.1)), 0.0)]) == ("vi", 0.9)


def test_a_jingle_of_another_language_does_not_decide() -> None:
    jingle = Ballot((("en", 0.95), ("vi", 0.05)), 4.0)
    speech = Ballot((("vi", 0.7), ("en", 0.3)), 28.0)
    for order in ([jingle, speech, speech], [speech, jingle, speech], [speech, speech, jingle]):
        assert winner(order) == ("vi", round((4 * 0.05 + 2 * 28 * 0.7) / 60, 6))


def test_sure_speech_outweighs_unsure_speech_of_equal_length() -> None:
    unsure, sure = Ballot((("en", 0.5), ("vi", 0.45)), 20), Ballot((("vi", 0.99), ("en", 0.01)), 20)
    assert winner([unsure, sure]) == ("vi", 0.72)


def test_nobody_is_elected_without_a_vote() -> None:
    assert elect([]) is None
    assert elect([Ballot((), 30.0)] * 3) is None


def test_windows_that_say_nothing_do_not_lessen_the_probability() -> None:
    assert winner([Ballot((), 30.0), Ballot((("en", 0.8),), 10.0)]) == ("en", 0.8)


@given(ballots)
def test_the_elected_has_the_greatest_mean_probability(given_ballots: list[Ballot]) -> None:
    elected = elect(given_ballots)
    said = [ballot for ballot in given_ballots if ballot.languages]
    if not said:
        assert elected is None
        return
    seconds = [max(ballot.seconds, 0.01) for ballot in said]
    means = {
        language: sum(
            weight * dict(ballot.languages).get(language, 0) for weight, ballot in zip(seconds, said, strict=True)
        )
        / sum(seconds)
        for ballot in said
        for language, _ in ballot.languages
    }
    assert elected is not None
    language, probability = elected
    assert 0 <= probability <= 1
    assert probability == pytest.approx(means[language])
    assert probability == pytest.approx(max(means.values()))
