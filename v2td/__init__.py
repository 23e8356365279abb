"""v2td: recordings named in Kafka become transcripts in Postgres."""

__version__ = "0.1.0"
