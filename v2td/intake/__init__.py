"""Where jobs come from: the Kafka consumer, the offsets it may commit, the dead letters, and the topic of results.

In: records. Out: calls of a handler that returns when their outcomes are durable. Blocks on the brokers only.
"""

from v2td.intake.connection import admin_client, client_options, cluster_id, ensure_topic
from v2td.intake.consumer import Intake
from v2td.intake.dead_letters import DeadLetters
from v2td.intake.refusals import explained
from v2td.intake.results_topic import Result, ResultsTopic
from v2td.intake.sender import acknowledged_time

__all__ = [
    "DeadLetters",
    "Intake",
    "Result",
    "ResultsTopic",
    "acknowledged_time",
    "admin_client",
    "client_options",
    "cluster_id",
    "ensure_topic",
    "explained",
]
