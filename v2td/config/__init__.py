"""Configuration: frozen, complete, validated once.

In: flags, `V2TD_SECTION__KEY`, the first seed's variables, config.toml. Out: one `Settings` and, for each
value, where it came from. Blocks only on reading small files.
"""

from v2td.config.admin import AdminSettings
from v2td.config.inference import EngineSettings, QualitySettings, SpeechSettings
from v2td.config.kafka import KafkaSettings
from v2td.config.layers import Source
from v2td.config.loading import LoadedConfig, load
from v2td.config.operators import TracingSettings, WebhookSettings
from v2td.config.problems import InvalidConfigError
from v2td.config.providers import (
    LOCAL,
    OpenAISettings,
    PluginSettings,
    ProviderSettings,
    ProvidersSettings,
    RoutingSettings,
    RuleSettings,
    WhisperCppSettings,
)
from v2td.config.secrets import redacted, without_password
from v2td.config.settings import (
    DatabaseSettings,
    LogSettings,
    MessageSettings,
    PipelineSettings,
    Settings,
    TestingSettings,
)
from v2td.config.sources import FetchSettings, HostSettings, S3Settings, StoreSettings
from v2td.config.storage import ApiSettings, CacheSettings, Format, OutputSettings, StorageSettings

__all__ = [
    "LOCAL",
    "AdminSettings",
    "ApiSettings",
    "CacheSettings",
    "DatabaseSettings",
    "EngineSettings",
    "FetchSettings",
    "Format",
    "HostSettings",
    "InvalidConfigError",
    "KafkaSettings",
    "LoadedConfig",
    "LogSettings",
    "MessageSettings",
    "OpenAISettings",
    "OutputSettings",
    "PipelineSettings",
    "PluginSettings",
    "ProviderSettings",
    "ProvidersSettings",
    "QualitySettings",
    "RoutingSettings",
    "RuleSettings",
    "S3Settings",
    "Settings",
    "Source",
    "SpeechSettings",
    "StorageSettings",
    "StoreSettings",
    "TestingSettings",
    "TracingSettings",
    "WebhookSettings",
    "WhisperCppSettings",
    "load",
    "redacted",
    "without_password",
]
