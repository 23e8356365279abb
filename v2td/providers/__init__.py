"""Providers: whoever turns a recording into text, and the rules that choose one.

In: a Recording (a file, its PCM and windows). Out: what was Heard. It may block on a provider for as long as the
provider's own deadlines allow. The engine is a provider too, but lives elsewhere (v2td/local.py).
"""

from v2td.providers.dispatch import Answer, Providers
from v2td.providers.protocol import EVERYTHING, Capabilities, Provider, Recording, text_sha256
from v2td.providers.router import Decision, Facts, Needs

__all__ = [
    "EVERYTHING",
    "Answer",
    "Capabilities",
    "Decision",
    "Facts",
    "Needs",
    "Provider",
    "Providers",
    "Recording",
    "text_sha256",
]
