"""Inference: pinned processes that hold the model, and the queue of windows before them.

In: windows of many jobs. Out: text with times in the window. Blocks on the slots only, never the event loop.
"""

from v2td.engine.batch import WindowRequest, WindowResult
from v2td.engine.engine import Engine
from v2td.engine.hearing import Hearing, Recognition
from v2td.engine.layout import plan_slots
from v2td.engine.manifest import write_manifest
from v2td.engine.models import find_model, models_folder, verified_model
from v2td.engine.topology import Plan, plan
from v2td.machine import read_machine

__all__ = [
    "Engine",
    "Hearing",
    "Plan",
    "Recognition",
    "WindowRequest",
    "WindowResult",
    "find_model",
    "models_folder",
    "plan",
    "plan_slots",
    "read_machine",
    "verified_model",
    "write_manifest",
]
