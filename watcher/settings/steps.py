"""The settings of the steps `metadata` and `embed` of one watch, each checked as a whole."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from watcher.domain.errors import ConfigError
from watcher.domain.step_rules import (
    ChannelOrder,
    EmbedderKind,
    EmbedRules,
    MetadataPolicy,
    MetadataRules,
    MetadataSource,
    PreprocessRules,
    ResizeMode,
)
from watcher.domain.templates import check_template, find_sidecar_suffix
from watcher.lightly.trust import build_trust
from watcher.settings.commands import split_command
from watcher.settings.faults import Faults
from watcher.settings.groups import Group

_EMBED, _PREPROCESS, _METADATA = EmbedRules(), PreprocessRules(), MetadataRules()
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def _split_numbers(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Triple = Annotated[tuple[float, float, float], BeforeValidator(_split_numbers)]


class EmbedSettings(Group):
    """Where vectors come from."""

    kind: EmbedderKind = Field(_EMBED.kind, description="descriptor (built in), onnx, command or http")
    batch_size: int = Field(
        _EMBED.batch_size, ge=1, le=1024, description="pictures handed to a model, command or service at once"
    )
    time_limit_s: float = Field(
        _EMBED.time_limit_s, gt=0, le=3600, description="longest wait for one such hand-over"
    )
    model: str | None = Field(None, description="onnx: the model file")
    input_name: str | None = Field(None, description="onnx: its input, if it has several")
    output_name: str | None = Field(None, description="onnx: its output, if it has several")
    threads: int = Field(_EMBED.threads, ge=1, le=256, description="onnx: threads of one call")
    width_px: int | None = Field(None, ge=1, le=4096, description="onnx: width of the input, if it is open")
    height_px: int | None = Field(None, ge=1, le=4096, description="onnx: height of the input, likewise")
    resize: ResizeMode = Field(
        _PREPROCESS.resize, description="onnx: crop, pad or stretch to the input's shape"
    )
    channels: ChannelOrder = Field(_PREPROCESS.channels, description="onnx: rgb or bgr")
    scale: float = Field(_PREPROCESS.scale, gt=0, description="onnx: levels 0 to 255 times this, then")
    mean: Triple = Field((0.0, 0.0, 0.0), description="onnx: minus these three, then")
    std: Triple = Field((1.0, 1.0, 1.0), description="onnx: divided by these three")
    command: str | None = Field(None, description="command: program and arguments, quoted as for a shell")
    url: str | None = Field(None, description="http: address of the service")
    token: SecretStr | None = Field(None, description="http: sent as Authorization: Bearer")
    ca_certs: str | None = Field(None, description="http: file of the only certificate authorities to trust")
    version: str | None = Field(
        None, description="command, http: names what is computed; change it with the vectors"
    )
    dim: int | None = Field(None, ge=1, le=65536, description="command, http: length of the vectors")
    send_px: int = Field(
        _EMBED.send_px,
        ge=0,
        le=8192,
        description="command, http: pictures shrunk to fit this; 0: the file as it is",
    )

    def build_rules(self, where: str) -> EmbedRules:
        """The rules, checked for what the kind needs.

        Args:
            where: how the variables start, for errors.

        Raises:
            ConfigError: something is missing, wrong, or belongs to another kind.
        """
        faults = Faults()
        faults.gather(lambda: self._refuse_foreign(where), None)
        if self.kind is EmbedderKind.ONNX:
            faults.gather(lambda: self._check_onnx(where), None)
        command: tuple[str, ...] = ()
        command = faults.gather(lambda: self._split_command(where), command)
        if self.kind is EmbedderKind.HTTP:
            faults.gather(lambda: self._check_service(where), None)
        if self.kind in (EmbedderKind.COMMAND, EmbedderKind.HTTP):
            if self.version is None or not _VERSION.fullmatch(self.version):
                faults.add(
                    f"{where}KIND={self.kind} needs {where}VERSION, up to 80 letters, digits, dots and dashes that "
                    "name what is computed, for example clip-b32-1"
                )
            if self.dim is None:
                faults.add(f"{where}KIND={self.kind} needs {where}DIM, the length of its vectors")
        faults.refuse()
        return EmbedRules(
            kind=self.kind,
            batch_size=self.batch_size,
            time_limit_s=self.time_limit_s,
            model=self.model,
            input_name=self.input_name,
            output_name=self.output_name,
            threads=self.threads,
            preprocess=PreprocessRules(
                width_px=self.width_px,
                height_px=self.height_px,
                resize=self.resize,
                channels=self.channels,
                scale=self.scale,
                mean=self.mean,
                std=self.std,
            ),
            command=command,
            url=self.url,
            token=None if self.token is None else self.token.get_secret_value(),
            ca_certs=self.ca_certs,
            version=self.version,
            dim=self.dim,
            send_px=self.send_px,
        )

    def _refuse_foreign(self, where: str) -> None:
        faults = Faults()
        for name in sorted(self.model_fields_set):
            kinds = (EmbedSettings.model_fields[name].description or "").partition(":")[0].split(", ")
            if set(kinds) <= {kind.value for kind in EmbedderKind} and self.kind.value not in kinds:
                faults.add(
                    f"{where}{name.upper()} is set, but {where}KIND is {self.kind}: set {where}KIND to "
                    f"{' or '.join(kinds)}, or unset {where}{name.upper()}"
                )
        faults.refuse()

    def _check_service(self, where: str) -> None:
        faults = Faults()
        parts = urlsplit(self.url or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            faults.add(f"{where}KIND=http needs {where}URL, an http(s) address")
        faults.gather(lambda: build_trust(only=self.ca_certs), None)
        faults.refuse()

    def _check_onnx(self, where: str) -> None:
        faults = Faults()
        if self.model is None:
            faults.add(f"{where}KIND=onnx needs {where}MODEL, the path of the model file")
        elif not Path(self.model).is_file():
            faults.add(f"{where}MODEL={self.model}: there is no such file")
        if 0 in self.std:
            faults.add(f"{where}STD holds 0, by which nothing can be divided")
        if importlib.util.find_spec("onnxruntime") is None:
            faults.add(
                f"{where}KIND=onnx needs ONNX Runtime: install the extra by `pip install 'datasource-watcher[onnx]'`"
            )
        faults.refuse()

    def _split_command(self, where: str) -> tuple[str, ...]:
        if self.kind is not EmbedderKind.COMMAND:
            return ()
        return split_command(self.command, f"{where}COMMAND", f"{where}KIND=command")


class MetadataSettings(Group):
    """Where custom metadata comes from."""

    source: MetadataSource | None = Field(None, description="sidecar, static or command")
    sidecar: str = Field(
        _METADATA.sidecar, description="sidecar: its name, with {folder}, {stem} and {name} of the picture"
    )
    values: str | None = Field(
        None,
        description="static: a JSON object; texts may hold {watch}, {file_name}, {arrived} and parts of PATTERN",
    )
    pattern: str | None = Field(
        None, description="static: a regular expression with named groups, searched in the file name"
    )
    command: str | None = Field(None, description="command: program and arguments, quoted as for a shell")
    time_limit_s: float = Field(
        _METADATA.time_limit_s, gt=0, le=3600, description="command: longest time for a page of 200 names"
    )
    json_schema: str | None = Field(None, description="file with a JSON schema that the metadata must fit")
    on_error: MetadataPolicy = Field(
        _METADATA.on_error,
        description="samples without good metadata: skip (go on, with the reason) or quarantine",
    )
    max_bytes: int = Field(
        _METADATA.max_bytes, ge=2, le=16_000_000, description="largest metadata of one sample, as JSON"
    )

    def build_rules(self, where: str, *, is_used: bool) -> MetadataRules:
        """The rules, checked for what the source needs.

        Args:
            where: how the variables start, for errors.
            is_used: whether the watch has the step `metadata`.

        Raises:
            ConfigError: something is missing, wrong, or belongs to another source.
        """
        if self.source is None:
            if is_used:
                raise ConfigError(
                    f"the step metadata needs {where}SOURCE: sidecar, static or command; or leave metadata out"
                )
            return MetadataRules()
        if not is_used:
            raise ConfigError(
                f"{where}SOURCE is set, but the steps leave metadata out: add it, or unset the source"
            )
        faults = Faults()
        faults.gather(lambda: self._refuse_foreign(where), None)
        command: tuple[str, ...] = ()
        values: dict[str, Any] = {}
        if self.source is MetadataSource.SIDECAR:
            faults.gather(lambda: find_sidecar_suffix(self.sidecar, variable=f"{where}SIDECAR"), "")
        elif self.source is MetadataSource.COMMAND:
            command = faults.gather(
                lambda: split_command(self.command, f"{where}COMMAND", f"{where}SOURCE=command"), command
            )
        else:
            values = faults.gather(lambda: self._read_values(where), {})
        schema = faults.gather(lambda: self._read_schema(where), None)
        faults.refuse()
        return MetadataRules(
            source=self.source,
            sidecar=self.sidecar,
            values=values,
            pattern=self.pattern,
            command=command,
            time_limit_s=self.time_limit_s,
            schema=schema,
            on_error=self.on_error,
            max_bytes=self.max_bytes,
        )

    def _refuse_foreign(self, where: str) -> None:
        faults = Faults()
        for name in sorted(self.model_fields_set):
            owner = (MetadataSettings.model_fields[name].description or "").partition(":")[0]
            if owner in {source.value for source in MetadataSource} and owner != self.source:
                faults.add(
                    f"{where}{name.upper()} is set, but {where}SOURCE is {self.source}: set {where}SOURCE={owner}, or "
                    f"unset {where}{name.upper()}"
                )
        faults.refuse()

    def _read_values(self, where: str) -> dict[str, Any]:
        try:
            values = json.loads(self.values or "")
        except ValueError as error:
            raise ConfigError(f"{where}VALUES is no JSON: {error}") from None
        if not isinstance(values, dict) or not values:
            raise ConfigError(
                f'{where}SOURCE=static needs {where}VALUES, a JSON object such as {{"site": "gate"}}'
            )
        groups: set[str] = set()
        if self.pattern is not None:
            try:
                groups = set(re.compile(self.pattern).groupindex)
            except re.error as error:
                raise ConfigError(f"{where}PATTERN is no regular expression: {error}") from None
            if not groups:
                raise ConfigError(f"{where}PATTERN has no named group, such as (?P<camera>[^/]+)")
        check_template(values, groups=groups, variable=f"{where}VALUES")
        return values

    def _read_schema(self, where: str) -> dict[str, Any] | None:
        if self.json_schema is None:
            return None
        import jsonschema  # noqa: PLC0415 - no other setting needs it

        try:
            schema = json.loads(Path(self.json_schema).read_text(encoding="utf-8"))
            jsonschema.validators.validator_for(schema).check_schema(schema)
        except OSError as error:
            raise ConfigError(
                f"{where}JSON_SCHEMA={self.json_schema} cannot be read: {error.strerror}"
            ) from None
        except (ValueError, jsonschema.SchemaError) as error:
            text = error.message if isinstance(error, jsonschema.SchemaError) else str(error)
            raise ConfigError(f"{where}JSON_SCHEMA={self.json_schema} is no JSON schema: {text}") from None
        if not isinstance(schema, dict):
            raise ConfigError(f"{where}JSON_SCHEMA={self.json_schema} holds no JSON object")
        from watcher.jobs.metadata_schema import find_outside_reference  # noqa: PLC0415 - as above

        reference = find_outside_reference(schema)
        if reference is not None:
            raise ConfigError(
                f"{where}JSON_SCHEMA={self.json_schema} refers to {reference!r}, which is not in it: references to "
                "addresses and other files are not followed; copy it below $defs"
            )
        return schema
