"""The examples of `docs/client.md`, run from top to bottom against the server of the suite."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path

import pytest

from tests.contract.client.conftest import build_client
from tests.unit.lightly.test_signatures import DOCUMENTED
from watcher.lightly import datasources
from watcher.lightly.wire.datasources import DatasourceLocal

GUIDE = Path(__file__).parents[3] / "docs" / "client.md"
DIFFERENCES = Path(__file__).parents[3] / "docs" / "differences.md"


def _read_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_examples_run(target, folder_of, tmp_path, monkeypatch):
    if target.datasource_root is None:
        pytest.skip(
            "WATCHER_CONTRACT_DATASOURCE_ROOT is not set: a folder that the other server reads as LOCAL"
        )
    name = f"street scenes {uuid.uuid4().hex}"
    folder_of("a.png", "b.png", "c.png", "sub/d.png", size=(160, 120))
    root = target.datasource_root / name.replace(" ", "-")
    root.mkdir()
    (root / "x.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTLY_TOKEN", target.token)
    monkeypatch.setenv("LIGHTLY_SERVER_LOCATION", target.url)
    from watcher.images import build_thumbnail, read_image

    Path("thumbnail.webp").write_bytes(build_thumbnail(read_image(Path("images/a.png"))))
    variables: dict = {"__name__": "example"}
    examples = _read_examples()
    for number, example in enumerate(examples):
        if "get_datasource()" in example:
            client = variables["client"]
            datasources.update_datasource(
                client.transport,
                dataset_id=client.dataset_id,
                datasource=DatasourceLocal(full_path=root.name),
            )
            time.sleep(1.1)
        code = compile(example.replace("street scenes", name), f"docs/client.md, example {number}", "exec")
        exec(code, variables)
    assert len(examples) >= 14
    assert [name for name, _ in variables["everything"]] == ["x.jpg"]
    cleaner = build_client(target.url, target.token)
    cleaner.delete_dataset_by_id(variables["client"].dataset_id)
    for made in ("client", "patient"):
        variables[made].transport.close()


def test_every_documented_method_has_an_example():
    text = "\n".join(_read_examples())
    called = set(re.findall(r"client\.(\w+)", text))
    assert {name for name in DOCUMENTED if name != "__init__"} <= called


def test_every_fault_is_answered_and_every_mended_one_has_its_test():
    text = DIFFERENCES.read_text(encoding="utf-8")
    answers = dict(re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", text, flags=re.MULTILINE))
    assert sorted(map(int, answers)) == list(range(1, 51))
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_faults_*.py"))
    tested = {int(number) for number in re.findall(r"def test_fault_(\d+)_", tests)}
    mended = {int(number) for number, answer in answers.items() if answer.startswith("mended")}
    kept = {int(number) for number, answer in answers.items() if answer.startswith("kept")}
    assert mended | kept == set(range(1, 51))
    assert mended <= tested
