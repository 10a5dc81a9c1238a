"""Looks for tokens and signatures in what processes wrote and pages answered."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

# A value that was hidden is `***`; a signature or token of any use is longer than seven characters.
_SIGNED = re.compile(
    r"(?:[?&]|&amp;|\\u0026|%3F|%26)(?:s|sig|signature|token|X-Amz-Signature|X-Goog-Signature|X-Amz-Credential)=(?!\*)[^\s&\"'\\]{8,}",
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
                self.know(*Path(value).read_text(encoding="utf-8").splitlines())
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
        """Searches the answer of a daemon or a platform: a page, an API, metrics."""
        if answer.headers.get("Content-Type", "").startswith(_TEXTS):
            self.search_body(answer.text, url=answer.url, method=str(answer.request.method))

    def search_body(self, text: str, *, url: str, method: str = "GET") -> None:
        """Searches the body of an answer.

        What a daemon shows holds no signature whatever. The API of a platform has to answer signed URLs, and its pages
        hold those of thumbnails; no secret that is known is in either of them.
        """
        path = urlsplit(url).path
        where = f"{method} {path}"
        if _PAGES.match(path):
            self.search(text, where)
        elif path.startswith("/pages/"):
            self.search(_OWN_THUMBNAIL.sub("", text), where)
        else:
            head = text[:_MOST_SEARCHED]
            self._found += [f"{where}: {secret[:3]}..." for secret in self._secrets if secret in head]

    def search_recording(self, path: Path) -> None:
        """Searches all that a browser was answered, what its scripts fetched included; reads a HAR file."""
        for entry in json.loads(path.read_text(encoding="utf-8"))["log"]["entries"]:
            content = entry["response"]["content"]
            if content.get("mimeType", "").startswith(_TEXTS) and content.get("encoding") != "base64":
                url, method = entry["request"]["url"], entry["request"]["method"]
                self.search_body(content.get("text", ""), url=url, method=f"browser: {method}")

    def record(self, browser: Browser, folder: Path) -> Browser:
        """The browser, whose contexts are searched when they are closed."""
        open_context, numbers = browser.new_context, count()

        def open_recorded(**options: Any) -> BrowserContext:
            path = folder / f"{next(numbers)}.har"
            context = open_context(record_har_path=path, record_har_content="embed", **options)
            close = context.close

            def close_and_search() -> None:
                close()
                self.search_recording(path)
                path.unlink()

            context.close = close_and_search
            return context

        browser.new_context = open_recorded
        return browser

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
            for key in (
                folder / "platform" / "platform.key",
                folder / "platform.key",
                folder / "statement.key",
            ):
                with contextlib.suppress(OSError):
                    self.know(*key.read_text().splitlines())
            with contextlib.suppress(OSError, ValueError):
                self.know(json.loads((folder / "control.json").read_text())["token"])


def _identify(file: TextIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


OUTPUTS = Outputs()
_NAMES_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|ACCESS_KEY|PLATFORM__KEY|STATEMENT__KEY)$")
_NAMES_SECRET_FILE = re.compile(r"(TOKEN|SECRET|PASSWORD|ACCESS_KEY|PLATFORM__KEY|STATEMENT__KEY)_FILE$")
_PAGES = re.compile(r"/(metrics|log|files|login|do/.*|(health|watches|api/v1|static)/.*)?$")
# The thumbnails in a platform's pages.
_OWN_THUMBNAIL = re.compile(r"(?<=\")/blobs/[a-f0-9]{24}/thumb/[a-f0-9/]{27}\?e=\d+&(?:amp;)?s=[a-f0-9]{32}")
_MOST_SEARCHED = 1_000_000
_TEXTS = ("text/", "application/json", "application/openmetrics-text")
