"""The benchmark: how good v2td is on this machine, as ratios within one run.

In: the services of the tests, the bundled model at the dimensions of real ones, speech of known text made on the
spot. Out: bench/results: latest.json, report.md and plots. One file per question; `measures.py` lists them.
"""
