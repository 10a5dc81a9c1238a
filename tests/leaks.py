"""Looks for tokens and signatures in what processes wrote and pages answered."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import requests

# A value that was hidden is `***`; a signature or token of any use is longer than seven characters.
_SIGNED = re.compile(
    r"(?:[?&]|%3F|%26)(?:s|sig|signature|token|X-Amz-Signature|X-Goog-Signature|X-Amz-Credential)=(?!\*)[^\s&\"'\\]{8,}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"bearer\s+(?!\*)[A-Za-z0-9._~+/-]{8,}", re.IGNORECASE)


def find_leaks(text: str, *, secrets: Iterable[str] = ()) -> list[str]:
    """What should not be there, with a few characters around it.

    Args:
        text: a log, an answer, a page.
        secrets: tokens known to the test.
    """
    patterns = [_SIGNED, _BEARER, *(re.compile(re.escape(secret)) for secret in secrets if len(secret) >= 8)]
    return [
        text[max(0, match.start() - 40) : match.end() + 10]
        for pattern in patterns
        for match in pattern.finditer(text)
    ]


class Outputs:
    """Everything that processes of the tests write and pages answer, searched after each test.

    A process is watched where it is started: its files are opened at once, so that they are read even after the
    test's folder is gone. An answer is searched where it is fetched.
    """

    def __init__(self) -> None:
        self._files: list[TextIO] = []
        self._secrets: set[str] = set()
        self._folders: set[Path] = set()
        self._found: list[str] = []

    def watch(self, *paths: Path, environ: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        """Searches what a process writes into these files from now on; its variables tell the secrets."""
        known = {_identify(file) for file in self._files}
        for path in paths:
            path.touch(mode=0o600)
            file = path.open(encoding="utf-8", errors="replace")
            if _identify(file) in known:  # started again
                file.close()
            else:
                self._files.append(file)
        for name, value in environ.items():
            if _NAMES_SECRET.search(name):
                self.know(value)
            elif _NAMES_SECRET_FILE.search(name) and Path(value).is_file():
                self.know(Path(value).read_text(encoding="utf-8"))
        for option, value in pairwise(arguments):
            if option == "--token":
                self.know(value)
        if "WATCHER_DATA_DIR" in environ:
            self._folders.add(Path(environ["WATCHER_DATA_DIR"]))

    def know(self, *secrets: str) -> None:
        """Nothing may show these from now on."""
        self._secrets |= {secret.strip() for secret in secrets if len(secret.strip()) >= 8}

    def search(self, text: str, where: str) -> None:
        """Searches a text at once; what is found is told by the next `take`."""
        self._found += [f"{where}: {leak}" for leak in find_leaks(text, secrets=self._secrets)]

    def search_answer(self, answer: requests.Response) -> None:
        """Searches the answer of a daemon's page, its API or its metrics."""
        if _PAGES.match(urlsplit(answer.url).path) and answer.headers.get("Content-Type", "").startswith(
            _TEXTS
        ):
            self.search(answer.text, f"{answer.request.method} {urlsplit(answer.url).path}")

    def take(self) -> list[str]:
        """What was found since the last call; reads what the files got meanwhile."""
        self._learn()
        for file in [*self._files]:
            self.search(file.read(), Path(file.name).name)
            if os.fstat(file.fileno()).st_nlink == 0:  # its test is over
                file.close()
                self._files.remove(file)
        found, self._found = self._found, []
        return found

    def _learn(self) -> None:
        """The secrets that a daemon and its platform made by themselves."""
        for folder in [*self._folders]:
            if not folder.parent.exists():
                self._folders.remove(folder)
                continue
            with contextlib.suppress(OSError):
                self.know((folder / "platform" / "token").read_text())
            with contextlib.suppress(OSError, ValueError):
                self.know(json.loads((folder / "control.json").read_text())["token"])


def _identify(file: TextIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


OUTPUTS = Outputs()
_NAMES_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|ACCESS_KEY|PLATFORM__KEY)$")
_NAMES_SECRET_FILE = re.compile(r"(TOKEN|SECRET|PASSWORD|ACCESS_KEY|PLATFORM__KEY)_FILE$")
_PAGES = re.compile(r"/(metrics|log|files|login|do/.*|(health|watches|api/v1|static)/.*)?$")
_TEXTS = ("text/", "application/json", "application/openmetrics-text")
