"""What `/debug/…` shows: profiles of the loop and of children, the heap, tasks, and what ran when the loop was late.

In: the children's names and processes. Out: a `Debugging`, which runs beside the daemon and costs some 20 timers a
second until it is asked. Nothing here holds the value of a variable, and so nothing of what was said.
"""

from v2td.debugging.debugging import Debugging

__all__ = ["Debugging"]
