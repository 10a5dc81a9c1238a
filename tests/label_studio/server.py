"""A real Label Studio in a process of its own, from its own environment."""

from __future__ import annotations

import functools
import os
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import requests

from tests import postgres

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".label-studio" / "bin" / "label-studio"
_START_LIMIT_S = 240.0


class LabelStudio:
    """The server over an SQLite file, with one user and both kinds of token."""

    def __init__(self, folder: Path) -> None:
        self.port = postgres.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.legacy_token = secrets.token_hex(20)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Token {self.legacy_token}"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [
            str(PROGRAM),
            "start",
            "--no-browser",
            "--internal-host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        user = [
            "--username",
            "a@example.com",
            "--password",
            "a-password-1",
            "--user-token",
            self.legacy_token,
        ]
        environ = {
            **os.environ,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self._folder / "data"),
            "LATEST_VERSION_CHECK": "false",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
        with (self._folder / "label-studio.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *user],
                env=environ,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        ends_s = time.monotonic() + _START_LIMIT_S
        while not self._answers():
            assert self._process.poll() is None, self.read_log()
            assert time.monotonic() < ends_s, self.read_log()
            time.sleep(0.5)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=20)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._session.close()

    def _answers(self) -> bool:
        try:
            return self._session.get(f"{self.url}/api/projects", timeout=30).status_code == 200
        except requests.RequestException:
            return False

    def read_log(self) -> str:
        return (self._folder / "label-studio.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._session.request(method, f"{self.url}{path}", timeout=60, **options)
        assert answer.status_code < 300, (method, path, answer.status_code, answer.text[:500])
        return answer.json() if answer.content else None

    @functools.cached_property
    def personal_token(self) -> str:
        """A user has one at most."""
        token: str = self.call("POST", "/api/token/")["token"]
        return token

    def reset_legacy_token(self) -> str:
        """Gives the user another token, and ends the old one, as the page of their account does."""
        token: str = self.call("POST", "/api/current-user/reset-token")["token"]
        self.legacy_token = token
        self._session.headers["Authorization"] = f"Token {token}"
        return token

    def find_projects(self, title: str) -> list[dict[str, Any]]:
        found = self.call("GET", "/api/projects", params={"page_size": 1000})["results"]
        return [project for project in found if project["title"] == title]

    def load_tasks(self, project_id: int) -> list[dict[str, Any]]:
        """All tasks of a project, by id."""
        query = {"project": project_id, "page_size": 10_000, "fields": "task_only"}
        tasks = self.call("GET", "/api/tasks", params=query)["tasks"]
        return sorted(tasks, key=lambda task: int(task["id"]))
