"""What the repository promises about itself: sizes, locks, paths, versions, and a wheel that holds everything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import watcher

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 440
LONG_BY_DESIGN = {"watcher/lightly/client.py"}
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
# A server that tests talk to over HTTP; nothing of ours is installed beside it.
ENVIRONMENTS_OF_THEIR_OWN = {"label-studio.lock"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def list_files(*patterns: str) -> list[Path]:
    """The files of the repository, committed or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in sorted(set(filter(None, listed))) if (ROOT / name).is_file()]


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def find_lines(pattern: str, *, skip: set[str] = frozenset()) -> list[str]:
    """Every place in the repository's text where the pattern stands."""
    found = []
    for path in list_files():
        name = str(path.relative_to(ROOT))
        if name in skip:
            continue
        for number, line in enumerate((read_text(path) or "").splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # No pip and no index: hatchling alone, as in the builder stage of the image.
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_every_source_file_is_short_enough_to_be_read():
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in list_files("watcher/*.py", "migrations/*.py")
    }
    too_long = {
        name: size for name, size in sizes.items() if size > LONGEST_FILE and name not in LONG_BY_DESIGN
    }
    assert too_long == {}


@pytest.mark.parametrize("word", ["utils", "helpers", "manager"])
def test_no_module_is_named_for_nothing(word):
    assert [path for path in list_files("watcher/*.py") if word in path.relative_to(ROOT).as_posix()] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_pins_and_hashes_every_requirement_and_names_no_index(lock):
    text = lock.read_text()
    requirements = re.findall(r"^[a-z0-9].*(?:\n    --hash=sha256:[0-9a-f]{64}.*)*", text, re.MULTILINE)
    assert len(requirements) > 3
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,-]+\])?==\S+", requirement)
        assert "--hash=sha256:" in requirement
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"^    --hash=\S+.*$", "", text, flags=re.MULTILINE), re.MULTILINE)


@pytest.mark.parametrize("group", ["run", "dev"])
def test_lock_holds_every_direct_requirement(group):
    locked = set(
        re.findall(r"^([a-z0-9._-]+)", (ROOT / "requirements" / f"{group}.lock").read_text(), re.MULTILINE)
    )
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"] * (group == "dev")]
    for extra in (
        "daemon",
        "platform",
    ):  # what the commands need; the other extras are chosen by whoever wants them
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    if group == "dev":
        wanted += PROJECT["dependency-groups"]["dev"]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", line)[0]).lower() for line in wanted}
    assert names - locked == set()


def test_lock_of_the_build_holds_the_build_system():
    asked = (ROOT / "requirements" / "build.in").read_text().split()
    assert set(PROJECT["build-system"]["requires"]) <= set(asked)


def test_lock_of_the_slim_image_leaves_the_platforms_libraries_out():
    text = (ROOT / "requirements" / "run-slim.lock").read_text()
    assert "apscheduler==" in text
    assert re.findall(r"^(obstore|cryptography|scikit-learn|scipy)==", text, re.MULTILINE) == []


def test_locks_agree_on_every_version():
    locks = [lock for lock in LOCKS if lock.name not in ENVIRONMENTS_OF_THEIR_OWN]
    pinned = [set(re.findall(r"^([a-z0-9._-]+)\S*==(\S+)", lock.read_text(), re.MULTILINE)) for lock in locks]
    everything = set().union(*pinned)
    for lock, pins in zip(locks, pinned, strict=True):
        names = {name for name, _version in pins}
        assert {pin for pin in everything if pin[0] in names} == pins, lock.name


def test_no_file_holds_a_path_of_one_machine():
    places = "work|root|home/[a-z]+|Users"
    assert find_lines(rf"(?<![\w.$}}*-])/(?:{places})/[\w.]") == []


def test_no_file_refers_to_a_folder_outside_the_repository():
    outside = re.escape("../" + "shared")
    assert find_lines(outside) == []


def test_no_file_holds_a_conflict_marker():
    assert find_lines(rf"^({'<' * 7} |{'>' * 7} )") == []


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.name)
def test_make_targets_that_a_text_tells_of_exist(path):
    text = path.read_text()
    told = re.findall(r"`make ([a-z][a-z-]*)", text) + re.findall(
        r"^\s*make ([a-z][a-z-]*)", text, re.MULTILINE
    )
    assert set(told) - make_targets() == set()


def test_readme_tells_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "make run" in text
    assert "make test" in text


def test_continuous_integration_runs_targets_that_exist():
    (targets,) = re.findall(r"^readonly TARGETS=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert {"test", "image-check"} <= set(targets.split()) <= make_targets()


def test_version_is_the_same_everywhere_and_has_its_entry_in_the_changelog():
    version = PROJECT["project"]["version"]
    assert watcher.__version__ == version
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    assert f"image: datasource-watcher:{version}\n" in (ROOT / "docker-compose.yml").read_text()


def test_wheel_holds_every_file_of_the_package_and_all_migrations(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(ROOT)) for path in list_files("watcher")}
    migrations = {f"watcher/_{path.relative_to(ROOT)}" for path in list_files("migrations")}
    assert "watcher/py.typed" in held
    assert any(re.fullmatch(r"watcher/_migrations/watcher/versions/\w+\.py", name) for name in held)
    assert (package | migrations) - held == set()
    others = {name for name in held if not name.startswith(("watcher/", "datasource_watcher-"))}
    assert others == set()
    assert [name for name in held if "__pycache__" in name] == []


def test_wheel_away_from_the_checkout_finds_its_migrations(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import watcher.database.schema as d; print(d.__file__); print(d.Schema('watcher', 'v', 'c').migrations_dir)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    module, migrations = map(Path, done.stdout.splitlines())
    assert module == tmp_path / "watcher" / "database" / "schema.py"
    assert migrations == tmp_path / "watcher" / "_migrations" / "watcher"
    assert (migrations / "env.py").is_file()
