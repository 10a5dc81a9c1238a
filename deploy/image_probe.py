"""Sees one image through a running daemon: ready, dropped into incoming/, done in the metrics, in a manifest."""

# ruff: noqa: INP001 - a program of its own, no package
from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import requests
from PIL import Image

_DONE = re.compile(r'^watcher_samples\{[^}]*state="done"[^}]*\} (\d+)', re.MULTILINE)


def _is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def main() -> None:
    """Exits with a message if any step does not happen within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="address of the daemon's pages")
    parser.add_argument("--data", required=True, type=Path, help="its data directory, seen from here")
    parser.add_argument("--process", required=True, type=int, help="process that must stay alive meanwhile")
    parser.add_argument("--limit-s", type=float, default=90, help="longest wait for each step")
    arguments = parser.parse_args()
    # Loopback is never asked by way of a proxy.
    session = requests.Session()
    session.trust_env = False

    def fetch(path: str) -> str:
        answer = session.get(f"{arguments.url}{path}", timeout=5)
        return answer.text if answer.ok else ""

    def wait_for(what: str, condition: Callable[[], bool]) -> None:
        started = time.monotonic()
        while time.monotonic() < started + arguments.limit_s:
            if not _is_running(arguments.process):
                sys.exit(f"image-check: the daemon ended before it was {what}")
            try:
                if condition():
                    sys.stdout.write(f"image-check: {what} after {time.monotonic() - started:.1f} s\n")
                    return
            except requests.RequestException:
                pass
            time.sleep(0.25)
        sys.exit(f"image-check: not {what} within {arguments.limit_s:.0f} s")

    wait_for("ready", lambda: bool(fetch("/health/ready")))
    incoming = arguments.data / "incoming"
    wait_for("watching its folder", incoming.is_dir)
    pixels = np.random.default_rng(7).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    unfinished = incoming.with_name("arriving.jpg")
    Image.fromarray(pixels).save(unfinished)
    unfinished.chmod(0o644)
    unfinished.rename(incoming / "arriving.jpg")
    wait_for("done with the image", lambda: sum(map(int, _DONE.findall(fetch("/metrics")))) == 1)

    def read_names() -> list[str]:
        return [
            json.loads(line)["file_name"]
            for manifest in (arguments.data / "selected").rglob("*.jsonl")
            for line in manifest.read_text(encoding="utf-8").splitlines()
        ]

    # A batch is done once its deliveries are promised; the manifest follows.
    wait_for("named in a manifest", lambda: bool(read_names()))
    if read_names() != ["arriving.jpg"]:
        sys.exit(f"image-check: the manifests name {read_names()}, not arriving.jpg once")


if __name__ == "__main__":
    main()
