"""A process that asks a server as fast as its limit allows: `requesting STORE_URL SERVER RATE N_THREADS AS DATA_DIR`."""

from __future__ import annotations

import random
import sys
import threading

from watcher.bootstrap import build_command_transport, build_transport
from watcher.database.engine import build_database
from watcher.domain.clock import SystemClock
from watcher.settings.root import load_settings


def main(store_url: str, server: str, rate: str, n_threads: str, name: str, data_dir: str) -> None:
    database = build_database(store_url, pool_size=2)
    settings = load_settings(
        {
            "LIGHTLY_TOKEN": "a-token",
            "LIGHTLY_SERVER_LOCATION": server,
            "WATCHER_STORE__URL": store_url,
            "WATCHER_DATA_DIR": data_dir,
            "WATCHER_API__REQUESTS_PER_S": rate,
            "WATCHER_WATCHES__CAMS__DATASET": "cams",
        }
    )
    if name == "command":
        transport = build_command_transport(settings, database=database)
    else:
        transport = build_transport(
            settings,
            server=server,
            token="a-token",
            clock=SystemClock(),
            rng=random.Random(1),
            observer=lambda _seen: None,
            stop=threading.Event(),
            database=database,
        )

    def ask() -> None:
        while transport.call("GET", f"/{name}").status == 200:
            pass

    transport.connections._throttle, limit = None, transport.connections._throttle
    transport.call("GET", "/begin")  # answered when all processes are there
    transport.connections._throttle = limit
    threads = [threading.Thread(target=ask) for _ in range(int(n_threads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
