"""What fuzzing has found, by target: each input once broke what the target asks, and is tried again for ever."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FINDINGS: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
    {"message": {}, "notification": {}, "url": {}, "address": {}, "container": {}}
)
