"""Outputs: a transcript becomes files in buckets, as `output.formats` or its message wants.

In: a `Transcript` that has no row yet. Out: the URLs of its files, or a JobError that says why not. Blocks on the
object store, and on a thread while a long transcript is rendered. Comes before the row, since a job with a row is
never done again: after a crash in between the same files are written once more.
"""

from v2td.outputs.outputs import Outputs

__all__ = ["Outputs"]
