"""One module for each group of faults; each has a tuple FAULTS, and `programme.py` knows the modules by name."""
