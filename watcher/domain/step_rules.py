"""What the steps `upload`, `metadata` and `embed` of a watch are told to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from watcher.domain.templates import find_sidecar_suffix


class UploadMode(StrEnum):
    """What is sent to the platform: values only, thumbnails too, or the whole file as well."""

    METADATA = "metadata"
    THUMBNAILS = "thumbnails"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRules:
    """What is uploaded of a sample, and the limits on it.

    Attributes:
        mode: see `UploadMode`.
        workers: images in work at once.
        max_bytes: larger files are quarantined.
        max_pixels: larger pictures are quarantined.
        grey_bits: how many bits of a level the cameras use in greys of more than 8 bits; None: found for each frame.
        settle_s: a truncated file is looked at again after this long before it is blamed.
        settle_attempts: how often.
    """

    mode: UploadMode = UploadMode.THUMBNAILS
    workers: int = 4
    max_bytes: int = 100_000_000
    max_pixels: int = 89_478_485
    grey_bits: int | None = None
    settle_s: float = 20.0
    settle_attempts: int = 3


class EmbedderKind(StrEnum):
    """Where vectors come from."""

    DESCRIPTOR = "descriptor"
    ONNX = "onnx"
    COMMAND = "command"
    HTTP = "http"


class ResizeMode(StrEnum):
    """How a picture gets the shape of a model's input.

    `crop` scales the short side and cuts the middle out, `pad` scales the long side and fills with black, `stretch`
    changes the aspect.
    """

    CROP = "crop"
    PAD = "pad"
    STRETCH = "stretch"


class ChannelOrder(StrEnum):
    """Order of the colours in a model's input."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessRules:
    """How a picture becomes the input of a model.

    Attributes:
        width_px, height_px: size of the input; None takes it from the model.
        resize: see `ResizeMode`.
        channels: see `ChannelOrder`.
        scale: levels from 0 to 255 are multiplied by this first.
        mean: then this is taken away, one number a channel in the model's order.
        std: then it is divided by this.
    """

    width_px: int | None = None
    height_px: int | None = None
    resize: ResizeMode = ResizeMode.CROP
    channels: ChannelOrder = ChannelOrder.RGB
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRules:
    """Which embedder a watch has.

    Attributes:
        kind: see `EmbedderKind`.
        batch_size: pictures handed to a model, command or service at once.
        time_limit_s: longest wait for one such hand-over.
        model: path of the ONNX file.
        input_name, output_name: of the model; None if it has only one.
        threads: of the model.
        preprocess: see `PreprocessRules`.
        command: program and arguments.
        url: of the service.
        token: sent to the service as `Authorization: Bearer`.
        ca_certs: file of the only certificate authorities that the service may have; None for the usual ones.
        version: names what a command or service computes.
        dim: length of its vectors.
        send_px: pictures are shrunk to fit a square of this side before they are handed on; 0 hands on the file.
    """

    kind: EmbedderKind = EmbedderKind.DESCRIPTOR
    batch_size: int = 16
    time_limit_s: float = 120.0
    model: str | None = None
    input_name: str | None = None
    output_name: str | None = None
    threads: int = 1
    preprocess: PreprocessRules = PreprocessRules()
    command: tuple[str, ...] = ()
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    version: str | None = None
    dim: int | None = None
    send_px: int = 512


class MetadataSource(StrEnum):
    """Where custom metadata comes from: a file beside the object, the settings, or a program."""

    SIDECAR = "sidecar"
    STATIC = "static"
    COMMAND = "command"


class MetadataPolicy(StrEnum):
    """What becomes of a sample without good metadata: it goes on with the reason noted, or is quarantined."""

    SKIP = "skip"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRules:
    """Where a watch's custom metadata comes from; see `MetadataSettings` for what each of them means.

    Attributes:
        source: None for a watch without the step.
        sidecar: pattern of a sidecar's name.
        values: a JSON object with placeholders.
        pattern: regular expression whose named groups are placeholders.
        command: program and arguments.
        time_limit_s: of the command, for one page of names.
        schema: a JSON schema.
        on_error: see `MetadataPolicy`.
        max_bytes: of one sample's metadata as JSON.
    """

    source: MetadataSource | None = None
    sidecar: str = "{folder}{stem}.json"
    values: dict[str, Any] = field(default_factory=dict)
    pattern: str | None = None
    command: tuple[str, ...] = ()
    time_limit_s: float = 300.0
    schema: dict[str, Any] | None = field(default=None, repr=False)
    on_error: MetadataPolicy = MetadataPolicy.SKIP
    max_bytes: int = 1_000_000

    def is_sidecar(self, file_name: str) -> bool:
        """Whether a listed file lies beside samples instead of being one."""
        return self.source is MetadataSource.SIDECAR and file_name.endswith(find_sidecar_suffix(self.sidecar))
