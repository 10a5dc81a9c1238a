"""The released official clients against a platform; `make test-official` builds their environments and runs this.

Not collected by `make test`: the file's name keeps it out, since building the environments takes minutes.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.official.workflows import N_IMAGES, make_pictures
from watcher.platform import users
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig

HERE = Path(__file__).parent
TOKEN = "token-of-the-official-clients"
GENERATIONS = ("1.2.8", "1.5.26")
NAMES = [
    *(f"camera/{index:02}.jpg" for index in range(N_IMAGES - 4)),
    "camera/a b.jpg",
    "camera/a+b%20.jpg",
    "camera/ünï.jpg",
    "camera/deep/er/x.JPG",
]


def driver_of(generation: str) -> Path:
    return HERE / f"drive_{generation.replace('.', '_')}.py"


def steps_of(generation: str) -> list[str]:
    tree = ast.parse(driver_of(generation).read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("step" in ast.dump(d) for d in node.decorator_list)
    ]


@pytest.fixture(scope="session")
def reports(tmp_path_factory) -> dict[str, dict[str, dict]]:
    """What each generation reported of each workflow, on a server of its own with small pages."""
    found = {}
    for generation in GENERATIONS:
        folder = tmp_path_factory.mktemp(f"official-{generation}")
        pictures = folder / "root" / "incoming"
        make_pictures(pictures, NAMES)
        config = PlatformConfig(
            token=TOKEN, datasource_root=folder / "root", data_dir=folder / "data", port=0, page_size=5
        )
        server = PlatformServer(config)
        server.start()
        users.add_user(server.platform, name="colleague")
        work = folder / "work"
        work.mkdir()
        # A slash at the end: 1.2.x keeps it, so its paths start with two.
        address = server.url + ("/" if generation == "1.2.8" else "")
        environment = {
            **os.environ,
            "LIGHTLY_SERVER_LOCATION": address,
            "LIGHTLY_DID_VERSION_CHECK": "False",
            "PYTHONPATH": str(HERE),
            "HOME": str(work),
        }
        command = [
            str(HERE.parents[1] / f".official-{generation}" / "bin" / "python"),
            str(driver_of(generation)),
            server.url,
            TOKEN,
            str(pictures),
            str(work),
        ]
        try:
            process = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=540, check=False
            )
        finally:
            server.stop()
        lines = [line for line in process.stdout.splitlines() if line.startswith("REPORT ")]
        reported = [json.loads(line.removeprefix("REPORT ")) for line in lines]
        found[generation] = {report["step"]: report for report in reported}
        found[generation]["output"] = {"ok": True, "error": (process.stdout + process.stderr)[-3000:]}
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("generation", "step"),
    [(generation, step) for generation in GENERATIONS for step in steps_of(generation)],
)
def test_workflow(reports, generation, step):
    report = reports[generation].get(step)
    assert report is not None, reports[generation]["output"]["error"]
    assert report["ok"], report["error"]
