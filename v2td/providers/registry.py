"""Makes the providers that are configured; what a kind needs is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from v2td.config import OpenAISettings, PluginSettings, ProviderSettings, ProvidersSettings, WhisperCppSettings
from v2td.config.problems import MASK, did_you_mean
from v2td.errors import ConfigError
from v2td.providers.protocol import Capabilities, Provider

GROUP = "v2td.providers"  # of the entry points

Factory = Callable[[str, Mapping[str, str]], Provider]


def make(settings: ProvidersSettings) -> Iterator[tuple[ProviderSettings, Provider]]:
    """Yield each provider with its table; none is open yet. Raises ConfigError, naming the table."""
    for index, each in enumerate(settings.whisper_cpp):
        yield each, _whisper_cpp(each, f"providers.whisper_cpp[{index}]")
    for api in settings.openai:
        yield api, _openai(api)
    for index, plugin in enumerate(settings.plugins):
        yield plugin, _plugin(plugin, f"providers.plugins[{index}]")


def _whisper_cpp(settings: WhisperCppSettings, field: str) -> Provider:
    if settings.server_url is not None:
        from v2td.providers.whisper_cpp_server import WhisperCppServer  # noqa: PLC0415 (only if configured)

        return WhisperCppServer(settings)
    if find_spec("pywhispercpp") is None:
        hint = "needs the package pywhispercpp: pip install v2td[whispercpp], or name a server_url"
        raise ConfigError(f"{field}.model", str(settings.model), hint)
    from v2td.providers.whisper_cpp import WhisperCppChild  # noqa: PLC0415 (only if configured)

    return WhisperCppChild(settings)


def _openai(settings: OpenAISettings) -> Provider:
    from v2td.providers.openai import OpenAIProvider  # noqa: PLC0415 (only if configured)

    return OpenAIProvider(settings)


def _plugin(settings: PluginSettings, field: str) -> Provider:
    found = entry_points(group=GROUP)
    wanted = settings.entry_point
    if wanted not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        hint = f"install the package that brings this entry point of {GROUP}; installed: {known}"
        raise ConfigError(f"{field}.entry_point", wanted, hint + did_you_mean(wanted, found.names))
    options = {key: value.get_secret_value() for key, value in settings.options.items()}
    try:
        factory: Factory = found[wanted].load()
        provider = factory(settings.name, options)
    except Exception as error:  # noqa: BLE001 (somebody else's code)
        reason = f"does not start: {type(error).__name__}: {_without(options, str(error))}"
        raise ConfigError(f"{field}.entry_point", wanted, reason) from None  # its traceback may show an option
    if missing := [name for name in _PARTS if not hasattr(provider, name)]:
        raise ConfigError(f"{field}.entry_point", wanted, f"makes no provider: it has no {', '.join(missing)}")
    if provider.name != settings.name:
        hint = f"makes a provider that is called {provider.name!r}, not {settings.name!r} as it is told"
        raise ConfigError(f"{field}.entry_point", wanted, hint)
    if (problem := _unusable(provider)) is not None:
        raise ConfigError(f"{field}.entry_point", wanted, f"makes a provider that cannot be used: {problem}")
    return provider


def _unusable(provider: Any) -> str | None:
    """Say what every job would stumble over, or wait for in vain."""
    model, jobs = provider.model, provider.concurrency
    if not isinstance(provider.capabilities, Capabilities):
        return "its capabilities are no Capabilities"
    if jobs is not None and (type(jobs) is not int or jobs < 0):
        return "its concurrency is no number of jobs, nor None"
    if not isinstance(provider.fingerprint, str) or not (model is None or isinstance(model, str)):
        return "its fingerprint, or its model, is no text"
    return None


_PARTS = (
    "name",
    "model",
    "fingerprint",
    "capabilities",
    "concurrency",
    "__aenter__",
    "__aexit__",
    "transcribe",
    "health",
)


def _without(options: Mapping[str, str], text: str) -> str:
    """Return a plugin's words without the secrets it was given."""
    for secret in sorted(options.values(), key=len, reverse=True):
        text = text.replace(secret, MASK) if secret else text
    return text
