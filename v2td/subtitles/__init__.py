"""Subtitles: a transcript's segments and word times go in; files whose cues obey reading rules come out. Pure."""

from v2td.subtitles.cues import Cue, Rules, cues, srt, vtt

__all__ = ["Cue", "Rules", "cues", "srt", "vtt"]
