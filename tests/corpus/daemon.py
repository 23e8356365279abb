"""`python -m tests.corpus.daemon run --config FILE`: the daemon, with names that mean what an attacker's would.

Only the answers of the name server are ours: what is asked, and who judges the addresses, is the daemon's own.
"""

from __future__ import annotations

import socket
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from v2td import cli, opening
from v2td.fetch import Downloader

# name -> what each question is answered with, the last one for ever
ZONE: dict[str, tuple[list[str], ...]] = {
    "good.test": (["127.0.0.9"],),
    "inside.test": (["127.0.0.1"],),
    "private.test": (["10.0.0.1", "192.168.0.1", "172.16.0.1"],),
    "metadata.test": (["169.254.169.254"],),
    "mapped.test": (["::ffff:127.0.0.1"],),
    "nat64.test": (["64:ff9b::7f00:1"],),
    "zone.test": (["fe80::1%lo"],),
    "both.test": (["127.0.0.1", "127.0.0.9"],),
    "flip.test": (["127.0.0.9"], ["127.0.0.1"]),
    "nowhere.test": ([],),
}


class AttackersNames(AbstractResolver):
    """Answers for ZONE; `servfail.test` has a broken name server; all else is asked as usual."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        name = host.removesuffix(".")
        if name == "servfail.test":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if name not in ZONE:
            return await ThreadedResolver().resolve(host, port, family)
        number = self._asked.get(name, 0)
        self._asked[name] = number + 1
        addresses = ZONE[name][min(number, len(ZONE[name]) - 1)]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return


def main() -> None:
    """Run `v2td run` with the attacker's names."""
    assert hasattr(opening, "Downloader"), "where the daemon opens its rooms"
    setattr(opening, "Downloader", partial(Downloader, resolver=AttackersNames()))  # noqa: B010 (mypy knows the class)
    cli.main()


if __name__ == "__main__":
    main()
