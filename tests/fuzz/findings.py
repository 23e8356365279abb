"""What fuzzing has found, by target: each input once broke what the target asks, and is tried again for ever."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FINDINGS: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
    {
        "message": {},
        "notification": {},
        "url": {
            "C1 control, which steers a terminal, in the reason": b"http://a>\xc2\x9b31m",
            "right-to-left override in the reason": b"http://a>\xe2\x80\xaegpj.",
            "unassigned character in the reason": b"HTTP://A>\xd7\xb7TTP://A:0",
        },
        "address": {},
        "container": {},
    }
)
