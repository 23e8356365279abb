"""What a job needs of a provider (pure), and what of its wishes may be passed over."""

from __future__ import annotations

from v2td.jobs import Options
from v2td.providers.protocol import Capabilities

# A prompt, hotwords, beams, candidates for the language: hints, which are honoured where that is possible.
NEEDED = ("word_timestamps", "multilingual")


def lacks(capabilities: Capabilities, options: Options, language: str | None) -> str | None:
    """Return what a provider cannot do that a job asks for; None when it can do all.

    `language` is the detected one, for a job that does not say its own.
    """
    spoken = options.language or language
    if options.task not in capabilities.tasks:
        return f"it does not {options.task}"
    if spoken is not None and capabilities.languages is not None and spoken not in capabilities.languages:
        return f"it does not know the language {spoken}"
    if options.channels == "split" and not capabilities.split:
        return "it does not tell channels apart"
    for name in NEEDED:
        if getattr(options, name) and name not in capabilities.options:
            return f"it has no {name}"
    return None
