"""Configuration: frozen, complete, validated once.

In: flags, `V2TD_SECTION__KEY`, the first seed's variables, config.toml. Out: one `Settings` and, for each
value, where it came from. Blocks only on reading small files.
"""

from v2td.config.layers import Source
from v2td.config.loading import LoadedConfig, load
from v2td.config.problems import InvalidConfigError
from v2td.config.secrets import redacted, without_password
from v2td.config.settings import (
    AdminSettings,
    DatabaseSettings,
    EngineSettings,
    FetchSettings,
    KafkaSettings,
    LogSettings,
    MessageSettings,
    PipelineSettings,
    S3Settings,
    Settings,
    SpeechSettings,
)

__all__ = [
    "AdminSettings",
    "DatabaseSettings",
    "EngineSettings",
    "FetchSettings",
    "InvalidConfigError",
    "KafkaSettings",
    "LoadedConfig",
    "LogSettings",
    "MessageSettings",
    "PipelineSettings",
    "S3Settings",
    "Settings",
    "Source",
    "SpeechSettings",
    "load",
    "redacted",
    "without_password",
]
