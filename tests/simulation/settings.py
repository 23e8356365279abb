"""The daemons' settings: short times, and bounds that are small as often as not."""

from __future__ import annotations

from random import Random

from v2td.config import DatabaseSettings, KafkaSettings, PipelineSettings, Settings

TOPIC = "jobs"


def draw_settings(random: Random) -> Settings:
    """Return the settings of all daemons of a schedule."""
    return Settings(
        kafka=KafkaSettings(
            topics=(TOPIC,),
            dead_letter_topic="dead",
            retry_topic=random.choice((None, "retry")),
            retry_delay_seconds=5,
            retry_rounds=2,
            session_timeout_seconds=6,
            rebalance_timeout_seconds=random.choice((8, 14)),
            request_timeout_seconds=8,
            commit_timeout_seconds=3,
            commit_batch=random.choice((1, 10)),
            max_uncommitted_records=random.choice((5, 50_000)),
        ),
        database=DatabaseSettings(flush_rows=random.choice((2, 1000))),
        pipeline=PipelineSettings(
            max_in_flight=random.choice((1, 3, 20)),
            drain_seconds=5,
            retry_initial_seconds=0.2,
            retry_max_seconds=2,
            breaker_ratio=1,
            progress_seconds=random.choice((0, 2)),
        ),
    )
