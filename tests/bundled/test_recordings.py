from __future__ import annotations

import av

from v2td.bundled import recordings


def test_the_manifest_is_true_to_the_files() -> None:
    assert len(recordings()) == 14
    for recording in recordings():
        with av.open(str(recording.path)) as container:
            assert container.duration is not None
            assert abs(container.duration / 1_000_000 - recording.seconds) < 0.05
        assert recording.text == " ".join(segment.text for segment in recording.segments)
        assert all(0 <= s.start < s.end <= recording.seconds for s in recording.segments)


def test_both_languages_have_short_ones_and_a_long_one() -> None:
    for language in ("en", "vi"):
        lengths = sorted(r.seconds for r in recordings() if r.language == language)
        assert len(lengths) == 7
        assert lengths[-2] < 15
        assert lengths[-1] > 75
