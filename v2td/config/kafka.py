"""The settings of Kafka: where jobs come from, where failed ones go, how patient we are with the brokers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from v2td.config.languages import LANGUAGES
from v2td.config.values import AbsolutePath, Broker, Count, Seconds, Section, Text, Topic, TopicLanguage


class KafkaSettings(Section):
    """Where jobs come from and where dead letters go."""

    bootstrap_servers: Annotated[tuple[Broker, ...], Field(min_length=1)] = Field(
        ("localhost:9092",), description="Brokers to ask first, host:port."
    )
    topics: Annotated[tuple[Topic, ...], Field(min_length=1)] = Field(
        ("v2td-jobs",), description="Topics whose records name recordings."
    )
    topic_languages: tuple[TopicLanguage, ...] = Field(
        (), description="Language where a message of that topic does not say, topic=code; else engine.default_language."
    )
    dead_letter_topic: Topic = Field(
        "v2td-dead-letters", description="Records that failed, with the reason in headers."
    )
    retry_topic: Topic | None = Field(
        None,
        description="Where jobs wait whose passing fault outlasted pipeline.attempts; none: they are dead-lettered.",
    )
    results_topic: Topic | None = Field(
        None, description="Where each outcome is told, keyed as its job's record; none: nowhere."
    )
    results_text_bytes: Annotated[int, Field(ge=0)] = Field(
        65_536, description="Longer texts are not told there, only where they are."
    )
    retry_delay_seconds: Seconds = Field(900, description="How long they wait there.")
    retry_rounds: Count = Field(3, description="How often they may, before they are dead-lettered all the same.")
    group_id: Text = Field("v2td", description="Consumer group that the instances share.")
    group_instance_id: Text | None = Field(
        None, description="Static membership: a restart within the session timeout moves no partition."
    )
    client_id: Text = Field("v2td", description="Name of this client in the broker's logs.")
    session_timeout_seconds: Seconds = Field(10, description="A silent member is thrown out of the group after this.")
    rebalance_timeout_seconds: Seconds = Field(
        60,
        description="Time for every member to rejoin; half of it may be used to finish work on revoked partitions.",
    )
    max_poll_interval_seconds: Seconds = Field(
        300,
        description="A member that stops polling is thrown out after this; paused partitions are polled too.",
    )
    request_timeout_seconds: Seconds = Field(40, description="One request to a broker.")
    metadata_max_age_seconds: Seconds = Field(30, description="New partitions are noticed within this.")
    fetch_max_wait_seconds: Seconds = Field(
        0.05, description="How long a broker may hold an empty fetch; decides the latency of a lone message."
    )
    commit_batch: Count = Field(10, description="Commit after this many finished records (STT_BATCH_SIZE)…")
    commit_interval_seconds: Seconds = Field(1, description="…or after this long, whichever comes first.")
    commit_timeout_seconds: Seconds = Field(5, description="Longest wait for one offset commit, also at shutdown.")
    max_uncommitted_records: Count = Field(
        50_000, description="Per partition: records between the oldest unfinished and the newest received."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="Used with SASL_PLAINTEXT and SASL_SSL."
    )
    sasl_username: Text | None = Field(None, description="User for SASL.")
    sasl_password: SecretStr | None = Field(None, description="Password for SASL.")
    sasl_token_provider: Text | None = Field(
        None,
        description="Who makes the tokens of OAUTHBEARER: an entry point of the group v2td.kafka_tokens, which is "
        "given this section (the user and password above may be its client's) and returns an aiokafka "
        "AbstractTokenProvider.",
    )
    sasl_token_seconds: Seconds = Field(10, description="Longest wait for a token.")
    ssl_ca_file: AbsolutePath | None = Field(
        None, description="CA certificates that sign the brokers'; system's when unset."
    )
    ssl_client_pem: SecretStr | None = Field(
        None,
        description="Client certificate and its unencrypted private key, PEM, one after the other, where brokers ask "
        "for them (mTLS).",
    )

    @property
    def languages_by_topic(self) -> dict[str, str]:
        """Return topic_languages as {topic: language}."""
        return dict(each.rsplit("=", 1) for each in self.topic_languages)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Timeouts contain each other, dead letters are not read as jobs, languages are known, SASL is complete."""
        if self.rebalance_timeout_seconds < self.session_timeout_seconds:
            yield "rebalance_timeout_seconds", f"at least session_timeout_seconds ({self.session_timeout_seconds:g})"
        if self.max_poll_interval_seconds < self.session_timeout_seconds:
            yield "max_poll_interval_seconds", f"at least session_timeout_seconds ({self.session_timeout_seconds:g})"
        if self.commit_timeout_seconds > self.rebalance_timeout_seconds / 2:
            # Half of the rebalance timeout goes to finishing work, and the commit must fit into the rest.
            yield (
                "commit_timeout_seconds",
                f"at most half of rebalance_timeout_seconds ({self.rebalance_timeout_seconds:g})",
            )
        if self.fetch_max_wait_seconds >= self.request_timeout_seconds:
            yield "fetch_max_wait_seconds", f"less than request_timeout_seconds ({self.request_timeout_seconds:g})"
        if self.dead_letter_topic in self.topics:
            yield "dead_letter_topic", "none of topics, or dead letters come back as jobs for ever"
        if self.retry_topic in (*self.topics, self.dead_letter_topic):
            yield "retry_topic", "a topic of its own, which only v2td writes to"
        if self.results_topic in (*self.topics, self.dead_letter_topic, self.retry_topic) and self.results_topic:
            yield "results_topic", "a topic of its own"
        by_topic = self.languages_by_topic
        if not set(by_topic) <= set(self.topics) or len(by_topic) < len(self.topic_languages):
            yield "topic_languages", f"one at most for each of topics ({', '.join(self.topics)})"
        elif not set(by_topic.values()) <= set(LANGUAGES):
            yield "topic_languages", "languages by Whisper's codes, such as en or vi"
        yield from self._security_contradictions()

    def _security_contradictions(self) -> Iterator[tuple[str, str]]:
        if self.security_protocol.startswith("SASL"):
            oauth = self.sasl_mechanism == "OAUTHBEARER"
            for name in ("sasl_token_provider",) if oauth else ("sasl_username", "sasl_password"):
                if getattr(self, name) is None:
                    yield name, f"set, since security_protocol is {self.security_protocol} with {self.sasl_mechanism}"
        if self.ssl_client_pem is not None and not self.security_protocol.endswith("SSL"):
            yield "ssl_client_pem", f"unset, since security_protocol is {self.security_protocol}"
