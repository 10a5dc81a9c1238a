"""Listing 100,000 objects in pages of 1,000: ours, lightly 1.5.26 and bare requests, in turn over one server.

And the memory of iterating 1,000,000.
"""

from __future__ import annotations

import sys

from benchmarks.client_servers import (
    DATASET_ID,
    TOKEN,
    compute_median,
    find_peer,
    report,
    run_program,
    serve,
)

N_ROWS = 100_000
N_MANY = 1_000_000
PAGE = 1000
N_ROUNDS = 5
LEAST_OVER_LIGHTLY = 4.0
MOST_OVER_BARE = 1.5
MOST_GROWTH_MB = 30

_CLIENT = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
server, token, dataset_id = sys.argv[1:]
os.environ["LIGHTLY_SERVER_LOCATION"] = server
from {package} import ApiWorkflowClient
client = ApiWorkflowClient(token=token, dataset_id=dataset_id)
begun = time.perf_counter()
rows = client.download_raw_samples(0, 1700000000)
print(json.dumps([len(rows), time.perf_counter() - begun]))
"""

_BARE = """
import json, sys, time
import requests
try:
    from orjson import loads
except ImportError:
    from msgspec.json import decode as loads
server, token, dataset_id = sys.argv[1:]
session = requests.Session()
url = f"{server}/v1/datasets/{dataset_id}/datasource/list"
begun = time.perf_counter()
query = {"from": 0, "to": 1700000000}
n = 0
while True:
    page = loads(session.get(url, params={**query, "token": token}).content)
    n += len(page["data"])
    if not page["hasMore"]:
        break
    query = {"cursor": page["cursor"]}
print(json.dumps([n, time.perf_counter() - begun]))
"""

_ITERATE = """
import json, resource, sys
server, token, dataset_id = sys.argv[1:]
from watcher.lightly import ApiWorkflowClient
client = ApiWorkflowClient(token=token, dataset_id=dataset_id, server=server)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
n = 0
for row in client.iter_raw_samples(0, 1700000000):
    n += 1
    if n == 1:
        before = peak()
print(json.dumps([n, peak() - before, peak()]))
"""


def main() -> int:
    """Prints rows a second of the three and the growth of memory; 0 if all limits hold."""
    peer = find_peer("1.5.26")
    arguments = (TOKEN, DATASET_ID)
    rates: dict[str, list[float]] = {"ours": [], "lightly": [], "bare": []}
    with serve("listing", str(N_ROWS), str(PAGE)) as server:
        for _ in range(N_ROUNDS):
            for name, python, program in (
                ("ours", sys.executable, _CLIENT.format(package="watcher.lightly")),
                ("lightly", peer, _CLIENT.format(package="lightly.api")),
                ("bare", sys.executable, _BARE),
            ):
                n, seconds = run_program(
                    python, program, server, *arguments, environment={"LIGHTLY_DID_VERSION_CHECK": "True"}
                )
                assert n == N_ROWS, (name, n)
                rates[name].append(n / seconds)
    medians = {name: compute_median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"   {name:8} {rate:>9,.0f} rows/s")
    faster = report(
        "times lightly 1.5.26", medians["ours"] / medians["lightly"], LEAST_OVER_LIGHTLY, at_least=True
    )
    near = report("bare over ours", medians["bare"] / medians["ours"], MOST_OVER_BARE, at_least=False)
    with serve("listing", str(N_MANY), str(PAGE)) as server:
        n, growth, peak = run_program(sys.executable, _ITERATE, server, *arguments)
    assert n == N_MANY, n
    print(f"   iterating {n:,} rows: peak {peak:.0f} MB")
    flat = report("MB added", growth, MOST_GROWTH_MB, at_least=False)
    return int(not (faster and near and flat))


if __name__ == "__main__":
    sys.exit(main())
