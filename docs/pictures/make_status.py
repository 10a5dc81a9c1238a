"""Takes the pictures of the status page: the demo's cameras, a broken file, on a desk and on a phone.

    python docs/pictures/make_status.py --data-dir /data [--out docs/pictures]

The data directory must not exist; it is made, and removed at the end. Its name is in the pictures: `/data` is what
containers have.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import requests
from playwright.sync_api import Browser, Page, sync_playwright

_DEMO_S = 45
_LIMIT_S = 120.0


@contextmanager
def _running(data_dir: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A daemon over the folder; gives its address and its variables."""
    environ = {"PATH": "/usr/bin:/bin", "WATCHER_DATA_DIR": str(data_dir)}
    ports = {"WATCHER_HTTP__PORT": "0", "WATCHER_PLATFORM__PORT": "0"}
    command = [sys.executable, "-m", "watcher", "run"]
    log = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=environ | ports, stdout=subprocess.PIPE, stderr=log, text=True
    ) as daemon:
        assert daemon.stdout is not None
        told = ""
        while "Ctrl-C" not in told:
            line = daemon.stdout.readline()
            if not line:
                sys.exit(f"the daemon ended: {told}")
            told += line
        found = re.search(r"status page\s+(http\S+?)/\s", told)
        assert found is not None
        try:
            yield found[1], environ
        finally:
            daemon.terminate()


def _wait_until_quiet(url: str) -> str:
    """Waits until nothing is under way and something was set aside; returns the name of such a file."""
    ends_s = time.monotonic() + _LIMIT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < ends_s:
            (watch,) = session.get(f"{url}/api/v1/status", timeout=10).json()["watches"]
            counts = watch["samples"]
            if watch["troubled"] and counts["done"] and not counts["waiting"] and not counts["processing"]:
                return str(watch["troubled"][-1]["file_name"])
            time.sleep(0.5)
    sys.exit("the demo's frames were not done in time")


def _open(browser: Browser, width: int, height: int, scheme: str) -> Page:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    return context.new_page()


def _take(page: Page, address: str, path: Path) -> None:
    page.goto(address, wait_until="networkidle")
    for picture in page.locator(".picks img").all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("image => image.decode()")
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=path)


def main() -> None:
    """Writes the four pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    data_dir, out = arguments.data_dir, arguments.out
    data_dir.mkdir(mode=0o700)
    try:
        with _running(data_dir) as (url, environ), sync_playwright() as playwright:
            demo = [sys.executable, "-m", "watcher", "demo", "--seconds", str(_DEMO_S), "--rate", "1.5"]
            subprocess.run(demo, env=environ, check=True, stdout=subprocess.DEVNULL)
            broken = _wait_until_quiet(url)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            _take(_open(browser, 1200, 1250, "light"), f"{url}/", out / "status-page.png")
            phone = _open(browser, 375, 700, "dark")
            _take(phone, f"{url}/", out / "status-phone-dark.png")
            phone = _open(browser, 375, 700, "light")
            _take(phone, f"{url}/files?name={quote(broken)}&watch=incoming", out / "status-phone-file.png")
            desk = _open(browser, 1100, 900, "light")
            desk.goto(f"{url}/login")
            desk.get_by_label("token").fill(json.loads((data_dir / "control.json").read_text())["token"])
            desk.get_by_role("button", name="Log in").click()
            _take(desk, f"{url}/", out / "status-desktop.png")
            browser.close()
    finally:
        shutil.rmtree(data_dir)


if __name__ == "__main__":
    main()
