"""Coverage-guided fuzzing of whatever reads a stranger's bytes: messages, notifications, URLs, addresses, containers.

`python -m tests.fuzz` runs it (`make fuzz` for long), `test_fuzz.py` for seconds at every `make test`. What it finds
goes into `findings.py`, from where it is tried again for ever.
"""
