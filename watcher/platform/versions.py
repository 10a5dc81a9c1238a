"""Versions, quota and ping."""

from __future__ import annotations

from typing import Annotated

import msgspec

from watcher.platform.calls import Call, Operation, text

# The last release with the workflow client; and a minimum that both generations accept.
LATEST_PIP_VERSION = "1.5.26"
MINIMUM_PIP_VERSION = "1.2.0"

Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
Quota = Annotated[str, msgspec.Meta(pattern="^[0-9]+$")]


def get_latest_version(_call: Call) -> str:
    """The newest package version."""
    return LATEST_PIP_VERSION


def get_minimum_version(_call: Call) -> str:
    """The oldest package version that is served."""
    return MINIMUM_PIP_VERSION


def get_quota(call: Call) -> str:
    """The largest dataset of this user, as text."""
    own = call.caller.max_samples
    return str(call.platform.config.max_samples if own is None else own)


def ping(_call: Call) -> None:
    """Answers."""


OPERATIONS = (
    Operation(
        "GET",
        "/v1/versions/pip/latest",
        "getLatestPipVersion",
        get_latest_version,
        "Newest package version",
        reply=Version,
        query=(text("currentVersion", max_length=100),),
        public=True,
    ),
    Operation(
        "GET",
        "/v1/versions/pip/minimum",
        "getMinimumCompatiblePipVersion",
        get_minimum_version,
        "Oldest package version served",
        reply=Version,
        public=True,
    ),
    Operation("GET", "/v1/quota", "getQuotaMaximumDatasetSize", get_quota, "Largest dataset", reply=Quota),
    Operation("GET", "/ping", "getPing", ping, "Liveness", public=True),
)
