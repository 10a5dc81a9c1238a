"""Fixtures for all tests, and the rule that continuous integration skips nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import requests
from psycopg import sql

from tests import postgres
from tests.leaks import OUTPUTS

# A machine under load takes its time; what is drawn is as hard either way.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

ALLOW_SKIPS_VARIABLE = "TESTS_ALLOW_SKIPS"
# Files whose tests share something that takes seconds to make: one process runs all of a file.
_TOGETHER = frozenset({
    "tests/browser/test_status_page.py",
    "tests/integration/container/test_dashboard.py",
    "tests/integration/container/test_kubernetes.py",
    "tests/integration/platform/test_buckets.py",
    "tests/integration/platform/test_pages.py",
})  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How tests are spread over processes; `--dist loadgroup` sees no groups since pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in _TOGETHER else nodeid

    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


def skips_are_allowed() -> bool:
    """`TESTS_ALLOW_SKIPS` (0 or 1) decides; without it skips are allowed anywhere but in continuous integration."""
    default = "0" if os.environ.get("CI", "").lower() in ("true", "1") else "1"
    return os.environ.get(ALLOW_SKIPS_VARIABLE, default) != "0"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    if report.when == "teardown":
        _refuse_leaks(report)
    return report


def _refuse_leaks(report: pytest.TestReport) -> None:
    """No token and no signature in what the test's processes wrote, in pages it fetched, or in its own output."""
    for title, text in report.sections:
        if "log" not in title:  # what pytest itself takes down of a log line is from before it was cleaned
            OUTPUTS.search(text, title)
    if (found := OUTPUTS.take()) and report.passed:
        report.outcome = "failed"
        report.longrepr = "secrets in the output:\n" + "\n".join(found)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    if report.skipped:
        _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if skips_are_allowed():
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = (
        f"{reason}\nNo test may be skipped here: install what it needs, or set {ALLOW_SKIPS_VARIABLE}=1."
    )


@pytest.fixture(scope="session", autouse=True)
def _answers_are_searched() -> Iterator[None]:
    """Whatever page of a daemon a test fetches."""
    send = requests.Session.send

    def send_and_search(self: requests.Session, request: Any, **options: Any) -> requests.Response:
        answer = send(self, request, **options)
        if not options.get("stream"):
            OUTPUTS.search_answer(answer)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", send_and_search)
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """The server of this test run, shared by all its processes."""
    try:
        client = postgres.Client(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())))
    except postgres.PostgresMissingError as missing:
        pytest.skip(str(missing))
    yield client.server
    client.close()


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """A fresh, empty Postgres database."""
    name = postgres.new_database_name()
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        yield postgres_server.url(name)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet, in an existing folder."""
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, empty database, once on SQLite and once on Postgres."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    return postgres.free_port()


def _find_program(*names: str) -> Path:
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    pytest.skip(f"no {' or '.join(names)} on this machine")


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser for the tests of the pages."""
    return _find_program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def prometheus_bin() -> Path:
    """The Prometheus server."""
    return _find_program("prometheus")


@pytest.fixture(scope="session")
def promtool_bin() -> Path:
    """Prometheus's checker of configurations and rules."""
    return _find_program("promtool")
