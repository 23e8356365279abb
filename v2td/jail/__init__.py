"""Locks a process in before it reads what strangers sent.

In: a `Jail`, which files it may touch. Out: the process may neither use the network, nor start a program or a
process, nor open anything else, nor send signals, as far as the kernel has means; `limits` bound what it may use up.
Blocks for some 50 ms, in the process that locks itself in. Nothing here can be undone: that is the point.
"""

from v2td.jail.jail import Jail, Means, means
from v2td.jail.limits import limit_cpu, limit_process
from v2td.jail.trial import breaches

__all__ = ["Jail", "Means", "breaches", "limit_cpu", "limit_process", "means"]
