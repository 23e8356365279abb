from __future__ import annotations

from pathlib import Path

from v2td.config import load
from v2td.demo.jobs import demo_jobs
from v2td.demo.session import DEAD_LETTER_TOPIC, JOBS_TOPIC, as_toml, generated_settings
from v2td.errors import ErrorClass

DSN = "postgresql://v2td@/v2td?host=/tmp/a%20b"


def test_the_generated_config_is_one_that_the_daemon_takes(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.touch(mode=0o600)
    config.write_text(as_toml(generated_settings(tmp_path, "127.0.0.1:9", 8000, DSN, 9000)))
    settings = load(config, environ={}).settings
    assert settings.kafka.topics == (JOBS_TOPIC,)
    assert settings.kafka.dead_letter_topic == DEAD_LETTER_TOPIC
    assert settings.fetch.allowed_ports == (8000,)
    assert settings.database.dsn.get_secret_value() == DSN
    assert settings.engine.model == "demo"


def test_the_jobs_are_all_recordings_a_damaged_file_and_a_malformed_message() -> None:
    jobs = demo_jobs("http://127.0.0.1:8000")
    assert len(jobs) == 16
    assert sum(job.recording is not None for job in jobs) == 14
    assert [job.error_class for job in jobs if job.error_class] == [ErrorClass.NOT_AUDIO, ErrorClass.BAD_MESSAGE]
