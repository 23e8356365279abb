"""A deterministic simulation: the real Intake, Pipeline and Writer of several daemons in one event loop with a virtual
clock, over a simulated Kafka and a simulated Postgres that fail by a seed.

    python -m tests.simulation --seeds 2000          # schedules 0 to 1999; failing seeds are printed and kept
    python -m tests.simulation --trace SEED          # what happened in one of them
    python -m tests.simulation --mutations           # bugs built in on purpose: each must be found

Design after FoundationDB's simulator and TigerBeetle's VOPR: everything that could differ between two runs of a seed
(clock, order of tasks, delays, faults) is drawn from it.
"""
