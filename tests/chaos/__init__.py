"""The reliability suite: real daemons, real services, one fault after the other; `make chaos` runs it.

Each fault has a `World` of its own and answers with a `Result`; see `fault.py` and `world.py` for what a new one is
written against, and `faults/` for all there are.
"""
