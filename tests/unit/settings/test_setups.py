"""The worked set-ups of docs/pipeline.md: `check-config` takes each as it stands on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import run_command

PAGE = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text(encoding="utf-8")
_SECTIONS = PAGE.partition("## Three set-ups")[2].split("\n### ")[1:]
SETUPS = {
    section.partition("\n")[0]: dict(
        line.split("=", 1) for line in section.partition("```sh\n")[2].partition("\n```")[0].splitlines()
    )
    for section in _SECTIONS
}


def test_page_has_three_setups():
    assert list(SETUPS) == [
        "Cameras to Label Studio",
        "A bucket to manifests with an ONNX model",
        "Many datasets with budgets",
    ]


def write_model(path: Path) -> Path:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    from tests.unit.embedders.models import make_model

    return make_model(path, shape=("n", 3, 224, 224))


@pytest.mark.parametrize("title", SETUPS)
def test_setup_of_the_page_is_taken_as_it_stands(title, tmp_path):
    environ = {}
    for name, value in SETUPS[title].items():
        # Files that lie on the reader's machine.
        path = tmp_path / Path(value).name
        if name.endswith("_FILE"):
            path.write_text("s3cret-t0ken-of-the-page")
            environ[name] = str(path)
        elif name.endswith("__MODEL"):
            environ[name] = str(write_model(path))
        else:
            environ[name] = value
    done = run_command("check-config", WATCHER_DATA_DIR=str(tmp_path / "data"), **environ)
    assert done.exit_code == 0, done.output
    assert "s3cret" not in done.output
