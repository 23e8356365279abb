"""What a duty does to the process: in one of its own."""

import subprocess
import sys

PROGRAM = """
import gc
from v2td import duties

class Ring: pass
ring = Ring(); ring.ring = ring; del ring  # garbage of the start is not to be kept for good
duties.tune_garbage_collection()
garbage = [each for each in gc.get_objects() if isinstance(each, Ring)]
gc.unfreeze()
frozen_garbage = [each for each in gc.get_objects() if isinstance(each, Ring)]
duties.tune_garbage_collection()
print(len(garbage), len(frozen_garbage), gc.get_freeze_count() > 10_000, gc.get_threshold() == duties.GC_THRESHOLDS)
"""


def test_what_is_there_at_the_start_is_not_looked_at_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["0", "0", "True", "True"]
