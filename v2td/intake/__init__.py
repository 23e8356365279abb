"""Where jobs come from: the Kafka consumer, the offsets it may commit, and the dead letters.

In: records. Out: calls of a handler that returns when their outcomes are durable. Blocks on the brokers only.
"""

from v2td.intake.connection import admin_client, client_options, cluster_id, ensure_topic
from v2td.intake.consumer import Intake
from v2td.intake.dead_letters import DeadLetters
from v2td.intake.refusals import explained

__all__ = ["DeadLetters", "Intake", "admin_client", "client_options", "cluster_id", "ensure_topic", "explained"]
