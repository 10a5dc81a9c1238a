"""Every setting of the platform reaches it, and both sides agree on what holds without one."""

from __future__ import annotations

import dataclasses

import pytest

from watcher.bootstrap import build_platform_config
from watcher.platform.settings import PlatformConfig
from watcher.settings.groups import PlatformSettings
from watcher.settings.root import load_settings

OWN = {
    # Of the folders the one has an option, the other a default below the data directory.
    "data_dir",
    "datasource_root",
}
TEXTS = {
    "host": "127.0.0.2",
    "token": "a-token-of-tests",
    "key": "ab" * 32,
    "url_base": "https://platform.example.org",
    "blob_url": "s3://bucket/prefix",
    "database_url": "sqlite:///x.sqlite",
}


def test_every_field_of_the_platform_has_a_variable_with_the_same_default():
    fields = {field.name: field for field in dataclasses.fields(PlatformConfig)}
    assert set(fields) - OWN == set(PlatformSettings.model_fields)
    for name, setting in PlatformSettings.model_fields.items():
        if name != "token":
            assert setting.default == fields[name].default, name


@pytest.mark.parametrize("name", sorted(PlatformSettings.model_fields))
def test_variable_of_the_platform_reaches_it(name, tmp_path):
    default = PlatformSettings.model_fields[name].default
    match default:
        case bool():
            value: object = not default
        case int() | float():
            value = default // 2
        case tuple():
            value = ("https://obs.example.org:443",)
        case _:
            value = TEXTS.get(name, "https://store.example.org")
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    settings = load_settings({"WATCHER_DATA_DIR": str(tmp_path), f"WATCHER_PLATFORM__{name.upper()}": text})
    config = build_platform_config(settings)
    assert getattr(config, name) == value
