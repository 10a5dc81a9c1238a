"""`watcher health`: asks a process of this machine whether it lives or is ready; what a container's HEALTHCHECK calls.

It is called every few seconds, so it loads the standard library alone and reads only the variables that tell the
address. Whether the pages are served over TLS follows from the settings, as for the process that it asks. Which process
runs in a container tells the command line of its first one, so that one HEALTHCHECK is right for all of them.
"""

from __future__ import annotations

import argparse
import http.client
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_PROCESSES = ("run", "worker", "platform")
_FIRST_PROCESS = Path("/proc/1/cmdline")
_TIMEOUT_S = 5.0
_MOST_SHOWN_BYTES = 4096
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class Target:
    """Where a process answers; `path` tells its state by the status of the answer."""

    host: str
    port: int
    path: str
    tls: bool


@dataclass(frozen=True, slots=True)
class Started:
    """A command that goes on: `run`, `worker` or `platform`, and what was written behind it."""

    process: str
    arguments: Sequence[str] = ()


def find_first_process(command_line: bytes) -> Started | None:
    """What the first process of a container is, perhaps behind an init: `docker-init -- watcher worker`.

    Args:
        command_line: the words, each with a NUL behind it, as in `/proc/1/cmdline`.

    Returns:
        None where it is something else, as on a machine that is no container.
    """
    words = command_line.decode("utf-8", "replace").split("\0")
    for place, (program, command) in enumerate(pairwise(words)):
        if program.rpartition("/")[2] == "watcher" and command in _PROCESSES:
            return Started(command, words[place + 2 :])
    return None


def find_target(
    environ: Mapping[str, str], *, process: str, question: str, arguments: Sequence[str] = ()
) -> Target:
    """The address by the variables of the process.

    Args:
        environ: the environment that the process was started with.
        process: `run`, `worker` or `platform`, as in the command that started it.
        question: `live` or `ready`; the platform has one answer for both.
        arguments: what was written behind that command: the platform's address may be there.

    Raises:
        ValueError: the port is no number, or a free one was taken, which cannot be known.
    """
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--host")
    options.add_argument("--port")
    written, _ = options.parse_known_args(arguments)
    group, default = {
        "run": ("HTTP", "8080"),
        "worker": ("WORKER", "8081"),
        "platform": ("PLATFORM", "8000"),
    }[process]
    name = f"WATCHER_{group}__PORT"
    port = written.port or environ.get(name) or default
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"{name}={port!r}: the health of a process is asked at a fixed port, from 1 to 65535"
        )
    named = environ.get(f"WATCHER_{'PLATFORM' if process == 'platform' else 'HTTP'}__HOST")
    host = written.host or named or "127.0.0.1"
    return Target(
        host=_ANYWHERE.get(host, host),
        port=int(port),
        path="/v1/versions/pip/minimum" if process == "platform" else f"/health/{question}",
        tls=process != "platform" and bool(environ.get("WATCHER_HTTP__TLS_CERT_FILE")),
    )


def ask(target: Target) -> tuple[bool, str]:
    """Whether the answer was good, and what it was.

    The certificate is not checked: it is made out to another name than this machine's loopback, and nothing secret is
    sent or believed.
    """
    if target.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            target.host, target.port, timeout=_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT_S)
    scheme = "https" if target.tls else "http"
    try:
        connection.request("GET", target.path)
        answer = connection.getresponse()
        body = answer.read(_MOST_SHOWN_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        return False, f"no answer from {scheme}://{target.host}:{target.port}{target.path}: {reason}"
    finally:
        connection.close()
    return answer.status == 200, body or str(answer.status)


def _find_started(first_process: Path) -> Started | None:
    try:
        return find_first_process(first_process.read_bytes())
    except OSError:  # not everywhere, and not for everybody
        return None


def main(arguments: Sequence[str], *, first_process: Path = _FIRST_PROCESS) -> int:
    """Prints what the process says of itself.

    Returns:
        0 if it is well, 1 if it is not or does not answer, 2 if the variables do not tell where it is.
    """
    parser = argparse.ArgumentParser(
        prog="watcher health", description="Ask a process on this machine whether it is alive, or ready."
    )
    parser.add_argument("question", nargs="?", choices=("live", "ready"), default="live")
    parser.add_argument(
        "--of",
        choices=_PROCESSES,
        help="which process: the command that started it (default: that of the container, else run)",
    )
    asked = parser.parse_args(arguments)
    started = _find_started(first_process)
    if started is None or asked.of not in (None, started.process):
        started = Started(asked.of or "run")
    try:
        target = find_target(
            os.environ, process=started.process, question=asked.question, arguments=started.arguments
        )
    except ValueError as error:
        sys.stderr.write(f"watcher: {error}\n")
        return 2
    is_well, told = ask(target)
    (sys.stdout if is_well else sys.stderr).write(f"{told}\n")
    return int(not is_well)
