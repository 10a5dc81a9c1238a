"""Gathers the root of the image: Python, the installed environment, and the system's files that these need.

Run in the builder stage of the Dockerfile, by the Python that the image will have. What is left behind: the shell, the
package manager, documentation, tests, headers, and every library that nothing here is linked with.

    python collect_root.py --environment /opt/watcher --root /rootfs
"""

# ruff: noqa: INP001 - a program of its own, no package
from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Parts of the standard library that no server calls.
_UNUSED = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "turtle.py")
_UNUSED_MODULES = re.compile(r"(_tkinter|_test|_ctypes_test|_xx|xx)")
_SITE = {"site-packages", "dist-packages"}
# Below the environment: tests of the libraries, and what is there for compilers only.
_TESTS = {"tests", "test", "testing_data"}
_FOR_COMPILERS = {".a", ".c", ".h", ".lib", ".pxd", ".pyi", ".pyx"}
# Read or opened by name at run time, so that no link tells of them.
_BY_NAME = (
    "/etc/ca-certificates.conf",
    "/etc/debian_version",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/ssl/certs",
    "/usr/lib/os-release",
    "/usr/lib/ssl",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo/Etc",
    "/usr/share/zoneinfo/UTC",
)
# Opened by the C library when a thread is cancelled.
_OPENED_LATER = ("libgcc_s.so.1",)
_LINKED = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x[0-9a-f]+\)")


def main() -> None:
    """Copies everything; exits with a message if a library is not to be found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", required=True, type=Path)
    parser.add_argument("--root", required=True, type=Path)
    arguments = parser.parse_args()
    trim(arguments.environment)
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    copy(interpreter, arguments.root)
    for path in Path(sys.executable), arguments.environment / "bin" / "python":
        keep_links(path, arguments.root)
    copy_tree(library, arguments.root)
    copy_tree(arguments.environment, arguments.root)
    for name in _BY_NAME:
        copy_tree(Path(name), arguments.root)
    objects = [interpreter, *find_objects(library), *find_objects(arguments.environment)]
    for linked in sorted(find_linked(objects)):
        copy(linked, arguments.root)
    for folder, mode in (("tmp", 0o1777), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755)):
        (arguments.root / folder).mkdir(exist_ok=True)
        (arguments.root / folder).chmod(mode)


def trim(environment: Path) -> None:
    """Takes out of the environment what only developers of its libraries need."""
    for path in sorted(environment.rglob("*")):
        if not path.exists() and not path.is_symlink():
            continue  # below a folder that is gone
        if (
            path.is_dir()
            and not path.is_symlink()
            and path.name in _TESTS
            and "watcher" not in path.parts[4:]
        ):
            shutil.rmtree(path)
        elif path.is_file() and path.suffix in _FOR_COMPILERS:
            path.unlink()


def copy_tree(source: Path, root: Path) -> None:
    """A file or a folder with all that is in it, links as links; nothing if it is not there."""
    if not source.is_dir() or source.is_symlink():
        if source.exists() or source.is_symlink():
            copy(source, root)
        return
    for folder, folders, files in os.walk(source):
        here = Path(folder)
        if here == source:
            # Packages of the system's own python are not the environment's.
            folders[:] = [name for name in folders if name not in {*_UNUSED, *_SITE}]
        (root / here.relative_to("/")).mkdir(parents=True, exist_ok=True)
        for name in [*files, *(name for name in folders if (here / name).is_symlink())]:
            if not is_unused(here / name):
                copy(here / name, root)


def is_unused(path: Path) -> bool:
    """Whether it is a part of the standard library that no server calls."""
    return path.name in _UNUSED or (
        path.parent.name == "lib-dynload" and _UNUSED_MODULES.match(path.name) is not None
    )


def copy(source: Path, root: Path) -> None:
    """One file at the same place below the root, with whatever its path and it are links to."""
    keep_links(source, root)
    real = source.resolve()
    target = root / real.relative_to("/")
    if real.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, target)


def keep_links(source: Path, root: Path) -> None:
    """Repeats every link on the way from `source` to the real file, also those of folders such as /lib."""
    seen = Path("/")
    for part in source.relative_to("/").parts:
        seen /= part
        if not seen.is_symlink():
            continue
        target = root / seen.relative_to("/")
        leads_to = seen.readlink()
        if not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(leads_to)
        rest = source.relative_to(seen)
        keep_links(Path(os.path.normpath(seen.parent / leads_to / rest)), root)
        return


def find_objects(folder: Path) -> list[Path]:
    """The compiled modules and libraries below a folder."""
    found = (path for path in folder.rglob("*.so*") if path.is_file() and not path.is_symlink())
    return [path for path in found if not is_unused(path)]


def find_linked(objects: list[Path]) -> set[Path]:
    """The system's libraries that these are linked with, directly or not, and the loader."""
    linked: set[Path] = set()
    for path in objects:
        told = subprocess.run(  # noqa: S603 - files of the image itself
            ["ldd", str(path)],  # noqa: S607 - found where the base image has it
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if missing := re.findall(r"(\S+) => not found", told):
            # Libraries that lie beside their package find each other only once the package has loaded one.
            beside = {found.name for found in path.parent.parent.rglob("*.so*")}
            if lost := [name for name in missing if name not in beside]:
                sys.exit(f"{path} is linked with {', '.join(lost)}, which is not on this system")
        linked |= {Path(name) for name in _LINKED.findall(told)}
    libraries = {path.parent for path in linked}
    linked |= {folder / name for folder in libraries for name in _OPENED_LATER if (folder / name).exists()}
    return linked


if __name__ == "__main__":
    main()
