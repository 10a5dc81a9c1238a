"""The fingerprint by which processes see whether they are configured alike."""

from __future__ import annotations

import dataclasses

from tests.builders import build_config
from watcher.domain.models import BatchRules, WatchConfig
from watcher.presence import compute_digest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerRules(BatchRules):
    """The rules of a version that has one more setting."""

    most_hours: int = 24


def newer(config: WatchConfig, **changes: object) -> WatchConfig:
    return dataclasses.replace(config, batch=NewerRules(**dataclasses.asdict(config.batch), **changes))


def test_digest_changes_with_a_setting_at_any_depth():
    config = build_config()
    assert compute_digest(config) == compute_digest(build_config())
    others = [
        dataclasses.replace(config, interval_s=config.interval_s + 1),
        dataclasses.replace(config, batch=dataclasses.replace(config.batch, max_open=7)),
        dataclasses.replace(config, steps=config.steps[:1]),
        build_config("other"),
    ]
    digests = {compute_digest(one) for one in (config, *others)}
    assert len(digests) == 5


def test_digest_is_the_same_in_a_version_with_one_more_setting_until_somebody_sets_it():
    config = build_config()
    assert compute_digest(newer(config)) == compute_digest(config)
    assert compute_digest(newer(config, most_hours=12)) != compute_digest(config)
