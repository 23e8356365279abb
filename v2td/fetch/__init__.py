"""Fetch: a URL that a message named becomes a file on this machine.

In: a URL (http, https, s3, file). Out: an `Audio`, or a JobError that says why not. Blocks on the network, on
DNS (in threads), and on the page cache of the spool folder; never longer than `fetch.total_seconds`.
Every socket to an address that a message chose passes `guard`; the object stores pass because the config names them.
"""

from v2td.fetch.cache import cache_folder, open_kept_files
from v2td.fetch.downloader import Downloader
from v2td.fetch.s3 import ObjectStore
from v2td.fetch.spool import Incoming

__all__ = ["Downloader", "Incoming", "ObjectStore", "cache_folder", "open_kept_files"]
