"""From variables to nested values: names, secrets in files, misspellings, errors that name the variable."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from watcher.domain.errors import ConfigError

_PREFIX = "WATCHER_"
_LIGHTLY = ("LIGHTLY_TOKEN", "LIGHTLY_SERVER_LOCATION", "LIGHTLY_CA_CERTS")
_NAME = "<NAME>"
# No setting, but an option of `watcher move-store`.
MOVE_TO = "WATCHER_MOVE_TO"
OF_COMMANDS = (MOVE_TO, f"{MOVE_TO}_FILE")
_LARGEST_SECRET_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Variable:
    """One thing that can be set.

    Attributes:
        name: as in the environment; `<NAME>` stands for the name of a watch.
        path: where it leads in the settings.
        is_secret: whether it may also come from a file, and is never shown.
    """

    name: str
    path: tuple[str, ...]
    field: FieldInfo
    is_secret: bool


def iter_variables(model: type[BaseModel]) -> Iterator[Variable]:
    """Every variable of the settings, in their order."""
    yield from _walk(model, ())


def _walk(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Variable]:
    for name, field in model.model_fields.items():
        here = (*path, name)
        inner = _inner_model(field.annotation)
        if inner is not None:
            group, is_mapping = inner
            yield from _walk(group, (*here, _NAME) if is_mapping else here)
        else:
            yield Variable(_variable_name(here), here, field, _is_secret(field.annotation))


def _put_into_words(problem: Any) -> str:
    """What is wrong, without the words of the library that found it."""
    text = str(problem["msg"]).removeprefix("Value error, ")
    if (
        problem["type"] == "too_short" and "actual_length" in problem["ctx"]
    ):  # of a secret, it speaks of "items"
        text = f"must have at least {problem['ctx']['min_length']} characters, not {problem['ctx']['actual_length']}"
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _inner_model(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if typing.get_origin(annotation) is dict:
        value = typing.get_args(annotation)[1]
        if isinstance(value, type) and issubclass(value, BaseModel):
            return value, True
    return None


def _is_secret(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_secret(argument) for argument in typing.get_args(annotation))
    return annotation is SecretStr


def _variable_name(path: tuple[str, ...]) -> str:
    if path[0].startswith("lightly_"):
        return path[0].upper()
    return _PREFIX + "__".join(part if part == _NAME else part.upper() for part in path)


class SecretFiles:
    """Reads the secrets that lie in files.

    Attributes:
        paths: by variable, where each secret was found.
        problems: what is wrong with others.
        environ: the variables that concern us, as they were given.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.paths: dict[str, str] = {}
        self.problems: list[str] = []
        self.environ: dict[str, str] = {}
        self._patterns = [_pattern(v.name + "_FILE") for v in iter_variables(model) if v.is_secret]

    def resolve(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables that concern us, with every `<SECRET>_FILE` replaced by the secret; empty ones count as unset.

        Those in small letters are among them, so that nobody believes that they count.
        A file that cannot be read, is empty or too large, or stands beside its secret, is one of `problems`.
        """
        resolved = {
            name: value
            for name, value in environ.items()
            if (name.upper().startswith(_PREFIX) and name not in OF_COMMANDS)
            or name.upper().removesuffix("_FILE") in _LIGHTLY
        }
        files = {
            name: value
            for name, value in environ.items()
            if any(pattern.fullmatch(name) for pattern in self._patterns)
        }
        self.environ = {name: value for name, value in {**resolved, **files}.items() if value != ""}
        for name, path in files.items():
            target = name.removesuffix("_FILE")
            resolved.pop(name, None)
            if path == "":
                continue
            if resolved.get(target):
                self.problems.append(f"both {target} and {name} are set: unset one of them")
                continue
            try:
                resolved[target] = read_secret(name, path)
            except ConfigError as error:
                self.problems.append(str(error))
            else:
                self.paths[target] = path
        return resolved


def read_secret(variable: str, path: str) -> str:
    """The secret in a file, without blanks around it and without the byte order mark of some editors.

    Raises:
        ConfigError: the file cannot be read, is empty or too large.
    """
    try:
        if os.stat(path).st_size > _LARGEST_SECRET_BYTES:  # noqa: PTH116 - one call, one error
            raise ConfigError(f"{variable} names {path}, which is too large for a secret")
        secret = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{variable} names {path}, which cannot be read: {reason}") from None
    if not secret:
        raise ConfigError(f"{variable} names {path}, which is empty")
    return secret


def find_unknown(model: type[BaseModel], variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that nothing reads, each with a text that names the nearest that something does."""
    known = [variable.name for variable in iter_variables(model)]
    patterns = [_pattern(name) for name in known]
    return {
        name: f"{name} is not a setting{_suggest(name, [*known, *OF_COMMANDS])}"
        for name in sorted(variables)
        if not any(pattern.fullmatch(name) for pattern in patterns)
    }


def find_spellings(variables: Mapping[str, str]) -> list[str]:
    """What is set under two names that differ in upper and lower case alone, as that of a watch may."""
    spellings: dict[str, list[str]] = {}
    for name in sorted(name for name, value in variables.items() if value != ""):
        spellings.setdefault(name.lower(), []).append(name)
    return [
        f"{' and '.join(names)} are one setting, spelt in different ways: leave one of them"
        for names in spellings.values()
        if len(names) > 1
    ]


def _suggest(name: str, known: list[str]) -> str:
    name = name.upper()
    for entry in known:
        parts = entry.split("__")
        if any(_pattern("__".join(parts[:n])).fullmatch(name) for n in range(1, len(parts))):
            within = name + "__" + "__".join(parts[name.count("__") + 1 :])
            return f": each of its parts is a variable, such as {within}"
    # The name of a watch, and perhaps that of one of its sinks.
    names = re.match(r"WATCHER_WATCHES__([^_].*?)__(?:DELIVER__[A-Z_]+?__([^_].*?)__)?", name)
    candidates = [
        entry.replace(_NAME, names[1], 1).replace(_NAME, names[2] or _NAME) if names else entry
        for entry in known
    ]
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return (
        f": did you mean {nearest[0]}?" if nearest else "; `watcher check-config --all` lists the known ones"
    )


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(re.escape(_NAME), "[A-Za-z0-9](?:_?[A-Za-z0-9-])*"))


def build_nested(variables: Mapping[str, str]) -> dict[str, Any]:
    """`WATCHER_A__B=1` becomes `{"a": {"b": "1"}}`; empty values count as unset."""
    nested: dict[str, Any] = {}
    for name, value in variables.items():
        if value == "":
            continue
        if name in _LIGHTLY:
            nested[name.lower()] = value
            continue
        parts = name.removeprefix(_PREFIX).lower().split("__")
        group = nested
        for part in parts[:-1]:
            group = group.setdefault(part, {})
        group[parts[-1]] = value
    return nested


def explain_validation(error: ValidationError, model: type[BaseModel]) -> str:
    """All problems, a line each: the variable, its value unless secret, what is allowed."""
    secrets = [_pattern(variable.name) for variable in iter_variables(model) if variable.is_secret]
    lines = []
    for problem in error.errors(include_url=False):
        # A place in a list is no part of the variable that holds the list.
        path = tuple(part for part in problem["loc"] if isinstance(part, str) and part != "[key]")
        name = _variable_name(path)
        is_secret = any(pattern.fullmatch(name) for pattern in secrets)
        # What holds a secret in one of its parts is not shown either.
        is_text = isinstance(problem.get("input"), (str, int, float, bool))
        shown = "" if is_secret or not is_text else f"={str(problem.get('input'))[:100]!r}"
        lines.append(f"{name}{shown}: {_put_into_words(problem)}")
    return "\n".join(lines)
