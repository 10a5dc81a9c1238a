"""The command `watcher`; says what to install where only the client is."""

from __future__ import annotations

import sys

from watcher import healthcheck


def main() -> None:
    """Runs the command line."""
    if sys.argv[1:2] == ["health"]:  # asked every few seconds, so without the libraries of the other commands
        sys.exit(healthcheck.main(sys.argv[2:]))
    try:
        from watcher.cli.app import app  # noqa: PLC0415 - the client alone is installed without these libraries
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
