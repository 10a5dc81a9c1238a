"""The status page of a real daemon in a real browser."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.acceptance.daemon_process import DaemonProcess
from tests.leaks import OUTPUTS
from tests.waiting import wait_for

WATCH = "WATCHER_WATCHES__INCOMING__"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NASTY = "<img src=x onerror=document.title='owned'>.jpg"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    running = DaemonProcess(
        tmp_path_factory.mktemp("browser") / "data",
        **{
            f"{WATCH}SCHEDULE__INTERVAL_S": "0.5",
            f"{WATCH}POLL__HOLD_BACK_S": "0",
            f"{WATCH}BATCH__MIN_SAMPLES": "6",
            f"{WATCH}BATCH__MAX_WAIT_S": "2",
            f"{WATCH}SAMPLING__BUDGET": "4",
        },
    )
    running.start()
    incoming = running.data_dir / "incoming"
    for number in range(5):
        _write_picture(incoming / f"picture-{number}.jpg", number)
    _write_picture(incoming / NASTY.replace("/", "_"), 9)
    (incoming / "broken.jpg").write_text("no picture")
    wait_for(
        lambda: _count(running, "done") == 6 and _count(running, "quarantined") == 1,
        what="six done, one set aside",
        explain=running.read_log,
    )
    yield running
    running.terminate()


def _write_picture(path: Path, seed: int) -> None:
    small = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())


def _count(daemon: DaemonProcess, state: str) -> int:
    watches = daemon.status()["watches"]
    return int(watches[0]["samples"][state]) if watches else -1


@pytest.fixture(scope="module")
def browser(chromium_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(chromium_path), args=FLAGS)
        yield OUTPUTS.record(launched, tmp_path_factory.mktemp("recordings"))
        launched.close()


@pytest.fixture
def page(browser: Browser, daemon: DaemonProcess) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.goto(f"{daemon.http}/", wait_until="networkidle")
    yield opened
    context.close()
    assert not troubles


def test_status_page_shows_states_steps_and_what_was_set_aside(page: Page) -> None:
    states = {
        box.inner_text().split("\n")[1]: box.inner_text().split("\n")[0]
        for box in page.locator(".states div").all()
    }
    assert states == {"waiting": "0", "processing": "0", "done": "6", "quarantined": "1", "gone": "0"}
    assert page.get_by_text("upload · embed · sampling · deliver").first.is_visible()
    assert "broken.jpg" in page.locator("table").last.inner_text()


def test_status_page_shows_the_latest_picks_as_pictures(page: Page) -> None:
    pictures = page.locator(".picks img")
    assert pictures.count() == 4
    for number in range(4):
        pictures.nth(number).scroll_into_view_if_needed()
        assert pictures.nth(number).evaluate("image => image.decode().then(() => image.naturalWidth)") == 128


def test_status_page_takes_file_names_as_text(page: Page) -> None:
    assert page.title() == "Datasource Watcher"
    assert "?e=" not in page.content()


@pytest.mark.parametrize("path", ["/", "/files?name=broken.jpg", "/log", "/login"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_status_page_fits_a_phone_and_follows_its_scheme(
    browser: Browser, daemon: DaemonProcess, scheme: str, path: str
) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(f"{daemon.http}{path}", wait_until="networkidle")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375
    # As with the longest name of a watch, which is also that of its batches.
    opened.evaluate(
        "document.querySelectorAll('main a, main small').forEach(e => e.textContent = 'x_'.repeat(31) + 'x')"
    )
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(244, 246, 248)" if scheme == "light" else "rgb(14, 19, 25)")
    context.close()


def test_status_page_can_be_read_without_script(browser: Browser, daemon: DaemonProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"{daemon.http}/")
    assert opened.get_by_role("heading", name="incoming").is_visible()
    context.close()


def test_status_page_without_script_asks_to_be_loaded_again(browser: Browser, daemon: DaemonProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"{daemon.http}/")
    assert opened.locator("noscript meta, meta[http-equiv=refresh]").count() == 1
    opened.goto(f"{daemon.http}/files?name=broken.jpg")
    assert opened.get_by_text("listed for the first time").is_visible()
    context.close()


def test_status_page_refreshes_by_itself_without_loading_again(page: Page, daemon: DaemonProcess) -> None:
    page.evaluate("window.kept = true")
    before = page.locator("header .soft").first.inner_text()
    page.wait_for_function(
        "before => document.querySelector('header .soft').innerText !== before", arg=before
    )
    assert page.evaluate("window.kept") is True
    page.locator(".picks img").first.scroll_into_view_if_needed()


def test_login_shows_buttons_and_replay_gives_a_file_another_chance(
    page: Page, daemon: DaemonProcess
) -> None:
    assert page.get_by_role("button", name="Replay what failed").count() == 0
    page.get_by_role("link", name="log in").click()
    page.get_by_label("token").fill(json.loads((daemon.data_dir / "control.json").read_text())["token"])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Replay what failed").click()
    assert "1 samples" in page.get_by_role("status").inner_text()
    wait_for(lambda: _count(daemon, "quarantined") == 1, what="set aside again, with its reason")
    assert daemon.run_json("log")[0]["verb"] == "replay"
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="log out").click()
    assert page.get_by_role("button", name="Pause").count() == 0
