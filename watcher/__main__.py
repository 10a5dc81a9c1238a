"""The command `watcher`; says what to install where only the client is."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from watcher.cli import app  # noqa: PLC0415 - the client alone is installed without these libraries
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("watcher"):
            raise
        sys.exit(
            f"the command needs the package {error.name!r}, which belongs to the daemon: "
            "pip install 'datasource-watcher[daemon,platform]'"
        )
    app()


if __name__ == "__main__":
    main()
