"""The slots for this machine and this model: looks at both, and decides with `topology`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from v2td.config import EngineSettings
from v2td.engine.footprint import batch_bytes, estimated_bytes
from v2td.engine.topology import Plan, plan, refit
from v2td.machine import read_machine

UNCERTAIN = 1.5  # an estimate may be so far off; where even that fits, nothing needs to be measured

Refit = Callable[[int], Plan]


def plan_slots(settings: EngineSettings, model: Path) -> tuple[Plan, Refit | None]:
    """Return the plan for `model`, and where memory is tight a function that plans anew.

    That function takes the resident bytes of a process that has loaded the model, and returns the same plan when
    its copies fit all the same. ConfigError when the settings do not suit the machine, or there is no model.
    """
    machine = read_machine()
    estimated = estimated_bytes(model, settings)
    planned = plan(machine, settings, estimated)
    if refit(planned, machine, settings, int(UNCERTAIN * estimated)) is planned:
        return planned, None
    more = batch_bytes(model, settings)
    return planned, lambda loaded_bytes: refit(planned, machine, settings, loaded_bytes + more)
