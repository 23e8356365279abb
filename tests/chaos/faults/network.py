"""The network."""

FAULTS = ()
