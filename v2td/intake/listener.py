"""aiokafka's rebalance callbacks, handed on to plain functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from aiokafka import ConsumerRebalanceListener, TopicPartition

Callback = Callable[[Collection[TopicPartition]], Awaitable[None]]


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Calls `revoked` before a rebalance and `assigned` after it; aiokafka logs and swallows what they raise."""

    def __init__(self, revoked: Callback, assigned: Callback) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Hand on the partitions that are about to go."""
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hand on all partitions that are ours now."""
        await self._assigned(assigned)
