"""`python -m v2td` is `v2td`."""

from __future__ import annotations

from v2td.cli import main

if __name__ == "__main__":  # spawned children import this module under another name
    main()
