"""The settings of the receivers of one watch's picks."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from watcher.domain.delivery import (
    DeliverRules,
    ImageReference,
    LabelStudioRules,
    ManifestFormat,
    ManifestRules,
    SinkConfig,
    SinkRules,
    WebhookRules,
)
from watcher.domain.errors import ConfigError
from watcher.lightly.trust import build_trust
from watcher.settings.faults import Faults
from watcher.settings.groups import Group
from watcher.sinks.bucket import SCHEMES, check_obstore
from watcher.sinks.formats import import_pyarrow
from watcher.sinks.webhook import decode_secret

SinkName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
_DELIVER, _MANIFEST = DeliverRules(), ManifestRules()
_WEBHOOK = WebhookRules(url="-", secret="-")  # noqa: S106 - read for its defaults
_STUDIO = LabelStudioRules(url="-", token="-", project="-")  # noqa: S106 - read for its defaults
_SHORTEST_SECRET = 16


class ManifestSettings(Group):
    """A file a batch in a folder or bucket."""

    location: str = Field(
        _MANIFEST.location,
        min_length=1,
        description="a folder (below the data directory unless absolute), or s3://, gs://, az:// and bucket",
    )
    format: ManifestFormat = Field(_MANIFEST.format, description="jsonl, csv or parquet")

    def build_rules(self) -> ManifestRules:
        """The rules, checked.

        Raises:
            ConfigError: an unknown kind of bucket, a bucket without obstore, or Parquet without pyarrow.
        """
        scheme, mark, rest = self.location.partition("://")
        if mark and (scheme not in SCHEMES or not rest.strip("/")):
            raise ConfigError(
                f"location {self.location!r} is neither a folder nor s3://bucket/prefix, gs://bucket/prefix or "
                "az://container/prefix"
            )
        if mark:
            check_obstore()
        if self.format is ManifestFormat.PARQUET:
            import_pyarrow()
        return ManifestRules(location=self.location, format=self.format)


class WebhookSettings(Group):
    """A signed HTTP POST a batch."""

    url: SecretStr | None = Field(
        None, description="where to; https, and http only to this machine unless allow_http"
    )
    secret: SecretStr | None = Field(
        None, description="signs the body: whsec_ and base64, or 16 characters or more"
    )
    key_id: str = Field(_WEBHOOK.key_id, pattern="^[A-Za-z0-9._-]{1,64}$", description="names the secret")
    allow_http: bool = Field(False, description="send over http too, where read URLs can be read on the way")
    max_picks: int = Field(
        _WEBHOOK.max_picks, ge=1, le=10_000, description="picks in one body; more come in parts"
    )
    timeout_s: float = Field(_WEBHOOK.timeout_s, gt=0, le=600, description="longest wait for an answer")
    ca_certs: str | None = Field(None, description="file of the only certificate authorities to trust")

    def build_rules(self) -> WebhookRules:
        """The rules, checked.

        Raises:
            ConfigError: no address, plain HTTP to another machine, or a weak secret.
        """
        if self.url is None or self.secret is None:
            raise ConfigError("a webhook needs URL and SECRET (or SECRET_FILE): set both")
        url, secret = self.url.get_secret_value(), self.secret.get_secret_value()
        faults = Faults()
        faults.gather(lambda: check_address(url, allow_http=self.allow_http), None)
        faults.gather(lambda: build_trust(only=self.ca_certs), None)
        faults.gather(lambda: _check_secret(secret), None)
        faults.refuse()
        return WebhookRules(
            url=url,
            secret=secret,
            key_id=self.key_id,
            max_picks=self.max_picks,
            timeout_s=self.timeout_s,
            ca_certs=self.ca_certs,
        )


class LabelStudioSettings(Group):
    """Tasks in a project of Label Studio."""

    url: str | None = Field(None, description="the server, such as https://label-studio.example.com")
    token: SecretStr | None = Field(None, description="a personal access token, or a legacy token")
    project: str | None = Field(
        None, min_length=1, max_length=50, description="title, or number, of the project"
    )
    create: bool = Field(_STUDIO.create, description="make a project of that title where there is none")
    label_config: str | None = Field(None, description="labelling interface (XML) of a project that is made")
    image: ImageReference = Field(_STUDIO.image, description="image of a task: redirect, uri or read-url")
    image_prefix: str | None = Field(
        None, description="with uri: what comes before the file name; default: the datasource's path"
    )
    image_field: str = Field(
        _STUDIO.image_field,
        pattern="^[A-Za-z_][A-Za-z0-9_]{0,62}$",
        description="its name in the task's data",
    )
    max_tasks: int = Field(_STUDIO.max_tasks, ge=1, le=1000, description="tasks in one request")
    timeout_s: float = Field(_STUDIO.timeout_s, gt=0, le=600, description="longest wait for an answer")
    ca_certs: str | None = Field(None, description="file of the only certificate authorities to trust")

    def build_rules(self) -> LabelStudioRules:
        """The rules, checked.

        Raises:
            ConfigError: no address, or a title that Label Studio does not take.
        """
        if self.url is None or self.token is None or self.project is None:
            raise ConfigError("Label Studio needs URL, TOKEN (or TOKEN_FILE) and PROJECT: set all three")
        url, faults = self.url, Faults()
        faults.gather(lambda: check_address(url, allow_http=True), None)
        faults.gather(lambda: build_trust(only=self.ca_certs), None)
        if not self.project.isdecimal() and len(self.project) < 3:
            faults.add(f"project {self.project!r}: a title has 3 characters or more")
        if self.image_prefix is not None and self.image is not ImageReference.URI:
            faults.add("image_prefix belongs to image=uri: set that, or leave the prefix out")
        faults.refuse()
        values = dict(self)
        return LabelStudioRules(**{**values, "token": self.token.get_secret_value()})


class DeliverSettings(Group):
    """To whom the picks of a watch go; a manifest in `selected/` if nobody is named."""

    retry_cap_s: float = Field(
        _DELIVER.retry_cap_s, gt=0, le=86_400, description="longest wait between attempts at a delivery"
    )
    give_up_after_s: float = Field(
        _DELIVER.give_up_after_s,
        ge=1,
        le=31_536_000,
        description="a delivery unconfirmed for so long is dead",
    )
    manifest: dict[SinkName, ManifestSettings] = Field(default_factory=dict, description="manifests by name")
    webhook: dict[SinkName, WebhookSettings] = Field(default_factory=dict, description="webhooks by name")
    label_studio: dict[SinkName, LabelStudioSettings] = Field(
        default_factory=dict, description="Label Studio projects by name"
    )

    def build_rules(self, where: str, *, is_used: bool) -> DeliverRules:
        """The sinks by name, checked.

        Args:
            where: how the variables start, for errors.
            is_used: whether the watch has the step `deliver`.

        Raises:
            ConfigError: a sink is contradictory, two have one name, or nothing would ever go to any.
        """
        groups: dict[str, Mapping[str, ManifestSettings | WebhookSettings | LabelStudioSettings]] = {
            "MANIFEST": self.manifest,
            "WEBHOOK": self.webhook,
            "LABEL_STUDIO": self.label_studio,
        }
        sinks: dict[str, SinkConfig] = {}
        seen: set[str] = set()
        faults = Faults()
        for kind, group in groups.items():
            for name, settings in group.items():
                if not is_used:
                    faults.add(
                        f"{where}{kind}__{name.upper()} is a sink, but the steps leave deliver out, so nothing would "
                        "ever go there: add deliver to the steps, or unset the sink"
                    )
                if name in seen:
                    faults.add(f"two sinks are called {name!r}: rename one of them")
                seen.add(name)
                own = Faults(f"sink {name!r}: ")
                rules = own.gather(_build_rules(settings), None)
                faults.texts += own.texts
                if rules is not None:
                    sinks[name] = SinkConfig(name=name, rules=rules)
        faults.refuse()
        return DeliverRules(
            sinks=tuple(sinks[name] for name in sorted(sinks)) or _DELIVER.sinks,
            retry_cap_s=self.retry_cap_s,
            give_up_after_s=self.give_up_after_s,
        )


def _build_rules(
    settings: ManifestSettings | WebhookSettings | LabelStudioSettings,
) -> Callable[[], SinkRules | None]:
    return settings.build_rules


def _check_secret(secret: str) -> None:
    if len(decode_secret(secret)) < _SHORTEST_SECRET:
        raise ConfigError(f"the secret has fewer than {_SHORTEST_SECRET} bytes: take a longer one")


def check_address(url: str, *, allow_http: bool) -> None:
    """Raises ConfigError if a URL is no address of a server that may be sent to; never shows it."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("url is no http or https address with a host name")
    if parts.username or parts.password:
        raise ConfigError(
            "url holds a user or password: leave them out, a token or signature does their work"
        )
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigError(
            "url is plain http, so read URLs could be read on the way: use https, or set allow_http to true"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
