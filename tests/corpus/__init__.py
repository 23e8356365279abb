"""The hostile corpus: every input of the threat list, and more, through the whole daemon; `make corpus` runs it.

All inputs are made by code (`messages.py`, `downloads.py`, `audio.py`, `own_*.py`); each says which fate it is to have.
`lanes.py` says through which daemons they go, `runner.py` sends them and `verdict.py` says what is wrong.
"""
