"""A sink of its configuration."""

from __future__ import annotations

from watcher.domain.delivery import LabelStudioRules, ManifestRules, SinkConfig
from watcher.sinks.base import Sink, SinkParts
from watcher.sinks.label_studio import LabelStudioSink
from watcher.sinks.manifest import ManifestSink
from watcher.sinks.webhook import WebhookSink


def build_sink(config: SinkConfig, parts: SinkParts) -> Sink:
    """The sink; connects to nothing.

    Raises:
        ConfigError: the secret of a webhook is malformed, or a file of certificates is missing.
    """
    rules = config.rules
    if isinstance(rules, ManifestRules):
        return ManifestSink(rules, parts)
    if isinstance(rules, LabelStudioRules):
        return LabelStudioSink(rules, parts)
    return WebhookSink(rules, parts)
