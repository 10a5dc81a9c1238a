"""Where picks are handed to, how a hand-over is named, and where it stands."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Drawn once for this project, so that the same delivery has the same id wherever it is computed.
_NAMESPACE = uuid.UUID("7d3c2f0e-5c0b-4a53-9a44-0e8f6b1d9c27")
DEFAULT_FOLDER = "selected"


class SinkKind(StrEnum):
    """What a sink is."""

    MANIFEST = "manifest"
    WEBHOOK = "webhook"
    LABEL_STUDIO = "label-studio"


class ManifestFormat(StrEnum):
    """How a manifest is written; the value is the end of its name."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class ImageReference(StrEnum):
    """What stands for the image in a task of a labelling tool.

    `redirect`: an address of the platform that never expires and leads to a fresh read URL. `uri`: the object's own
    address, such as `s3://bucket/name`, for a tool with its own access. `read-url`: a read URL, which expires.
    """

    REDIRECT = "redirect"
    URI = "uri"
    READ_URL = "read-url"


class DeliveryState(StrEnum):
    """Where a delivery stands.

    `ready` (perhaps not before a time), `running` under a lease, `done` once confirmed, `dead` when it was given up, or
    `dropped` when a person does not want a dead one any more.
    """

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRules:
    """A file a batch.

    Attributes:
        location: a folder (below the data directory unless absolute), or `s3://`, `gs://` or `az://` with bucket and
            prefix.
        format: how it is written.
    """

    location: str = DEFAULT_FOLDER
    format: ManifestFormat = ManifestFormat.JSONL

    @property
    def is_bucket(self) -> bool:
        """Whether manifests go into a bucket and not into a folder."""
        return "://" in self.location


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRules:
    """A signed HTTP POST a batch, or several for a large one.

    Attributes:
        url: where to; may hold a secret, so only its host is ever shown.
        secret: signs the body; `whsec_` and base64, or any other text.
        key_id: names the secret to the receiver, so that it can be changed without a gap.
        max_picks: no body holds more; the rest follows in further parts.
        timeout_s: longest wait for an answer.
        ca_certs: file of the only certificate authorities to trust; absent: the usual ones.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    key_id: str = "1"
    max_picks: int = 100
    timeout_s: float = 30.0
    ca_certs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStudioRules:
    """Tasks in a project of Label Studio.

    Attributes:
        url: the server.
        token: a personal access token, or a legacy token.
        project: its title, or its number.
        create: whether a project of that title is made where there is none.
        label_config: labelling interface of a project that is made.
        image: what stands for the image in a task.
        image_prefix: with `uri`: what comes before the file name; absent: the path of the dataset's datasource.
        image_field: under which name the image stands in a task's data.
        max_tasks: tasks in one request.
        timeout_s: longest wait for an answer.
        ca_certs: file of the only certificate authorities to trust; absent: the usual ones.
    """

    url: str
    token: str = field(repr=False)
    project: str
    create: bool = True
    label_config: str | None = None
    image: ImageReference = ImageReference.REDIRECT
    image_prefix: str | None = None
    image_field: str = "image"
    max_tasks: int = 100
    timeout_s: float = 60.0
    ca_certs: str | None = None


SinkRules = ManifestRules | WebhookRules | LabelStudioRules
_KINDS: Mapping[type, SinkKind] = {
    ManifestRules: SinkKind.MANIFEST,
    WebhookRules: SinkKind.WEBHOOK,
    LabelStudioRules: SinkKind.LABEL_STUDIO,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkConfig:
    """One receiver of a watch's picks; its name is one of the watch's own."""

    name: str
    rules: SinkRules

    @property
    def kind(self) -> SinkKind:
        """What it is."""
        return _KINDS[type(self.rules)]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, which another machine has not, or has another of the same name."""
        return isinstance(self.rules, ManifestRules) and not self.rules.is_bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverRules:
    """To whom the picks of a watch go, and how long that is tried.

    Attributes:
        sinks: the receivers; each has deliveries of its own, so that none waits for another.
        retry_cap_s: longest wait between two attempts.
        give_up_after_s: a delivery that is not confirmed so long after its batch is dead.
    """

    sinks: tuple[SinkConfig, ...] = (SinkConfig(name="manifest", rules=ManifestRules()),)
    retry_cap_s: float = 900.0
    give_up_after_s: float = 604_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The picks of a batch on their way to one sink.

    Attributes:
        sink: name of the sink.
        location: where they lie, without secrets; None until they were handed over.
        progress: what the sink wants to know at its next attempt.
        finished_ms: when the receiver confirmed, or the delivery was given up.
        picks_digest: `compute_picks_digest` of what was promised; None in rows of earlier versions.
    """

    id: int
    batch_id: int
    watch_id: int
    sink: str
    kind: SinkKind
    state: DeliveryState
    attempt: int
    n_picks: int
    available_ms: int
    created_ms: int
    location: str | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    error: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    picks_digest: str | None = None


def compute_delivery_id(*, dataset_id: str, batch_key: str, sink: str, picks_digest: str | None) -> str:
    """The natural key of a delivery for its receiver: the same at every attempt, on every machine.

    A store put back from a copy gives a batch's number out a second time. The id is the same then if the picks are,
    and another if they are not, so that a receiver that drops what it knows drops nothing new.

    Args:
        dataset_id: of the watch.
        batch_key: `<watch>-<number>`.
        sink: its name.
        picks_digest: of the picks; None for a delivery that an earlier version promised, whose id was made without.
    """
    parts = (
        (dataset_id, batch_key, sink) if picks_digest is None else (dataset_id, batch_key, sink, picks_digest)
    )
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def compute_picks_digest(file_names: Iterable[str]) -> str:
    """What tells picks from other picks: SHA-256, in hex, of their names by rank, each with the NUL no name holds."""
    digest = hashlib.sha256()
    for name in file_names:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()
