"""The cache of results: a recording that was transcribed before gets its text from there.

In: the digest of the audio, those of all else that may decide the text. Out: `Found`, which makes a full Transcript of
another job, or the duty to transcribe. It may wait for another job with the same recording, a quarter of a second for
Redis and some seconds for Postgres; when they are away it finds less, and nothing wrong.
"""

from v2td.results.cache import Lease, ResultCache, check_redis
from v2td.results.found import Found

__all__ = ["Found", "Lease", "ResultCache", "check_redis"]
