"""The tests of v2td; tests/services holds the real Kafka, Postgres and S3 server that they run against."""
