"""Commands in settings: one text, quoted as for a shell."""

from __future__ import annotations

import shlex
import shutil

from watcher.domain.errors import ConfigError


def split_command(text: str | None, variable: str, because: str) -> tuple[str, ...]:
    """Program and arguments.

    Raises:
        ConfigError: empty, badly quoted, or no such program.
    """
    try:
        parts = tuple(shlex.split(text or ""))
    except ValueError as error:
        raise ConfigError(f"{variable} is not quoted as a shell would have it: {error}") from None
    if not parts:
        raise ConfigError(f"{because} needs {variable}, a program and its arguments")
    if shutil.which(parts[0]) is None:
        raise ConfigError(f"{variable}: there is no program {parts[0]!r} that this user may run")
    return parts
