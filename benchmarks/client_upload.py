"""Uploading photographs of 1600 x 1200, mode `thumbnails`, 8 workers, beside lightly 1.2.8 over one trivial server."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.client_servers import DATASET_ID, ROOT, TOKEN, find_peer, report, run_program, serve

N_OURS = 240
N_THEIRS = 40
LEAST_OVER_LIGHTLY = 8.0
MOST_MB = 250

_OURS = """
import json, resource, sys, time
server, token, dataset_id, folder = sys.argv[1:]
from watcher.lightly import ApiWorkflowClient
client = ApiWorkflowClient(token=token, dataset_id=dataset_id, server=server)
begun = time.perf_counter()
report = client.upload_dataset(folder, max_workers=8, verbose=False, strict=True)
seconds = time.perf_counter() - begun
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([len(report.uploaded), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""

_THEIRS = """
import json, os, resource, sys, time, warnings
warnings.simplefilter("ignore")
server, token, dataset_id, folder, shim = sys.argv[1:]
os.environ["LIGHTLY_SERVER_LOCATION"] = server
sys.path.insert(0, shim)
import shim_1_2_8
from lightly.api import ApiWorkflowClient
client = ApiWorkflowClient(token=token, dataset_id=dataset_id)
before = time.process_time()
begun = time.perf_counter()
client.upload_dataset(folder, max_workers=8, mode="thumbnails", verbose=False)
seconds = time.perf_counter() - begun
n = sum(len(files) for _, _, files in os.walk(folder))
mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([n, seconds, time.process_time() - before, mb]))
"""


def main() -> int:
    """Prints images a second, CPU seconds an image and peak memory of both; 0 if the limits hold."""
    peer = find_peer("1.2.8")
    with tempfile.TemporaryDirectory() as folder, serve("upload") as server:
        many, few = Path(folder, "many"), Path(folder, "few")
        _make_photographs(many, N_OURS)
        _make_photographs(few, N_THEIRS)
        environment = {"LIGHTLY_DID_VERSION_CHECK": "True"}
        theirs = run_program(
            peer,
            _THEIRS,
            server,
            TOKEN,
            DATASET_ID,
            str(few),
            str(ROOT / "tests" / "official"),
            environment=environment,
        )
        ours = run_program(sys.executable, _OURS, server, TOKEN, DATASET_ID, str(many))
    rates = []
    for name, (n, seconds, cpu, mb) in (("lightly 1.2.8", theirs), ("ours", ours)):
        rates.append(n / seconds)
        print(f"   {name:14} {n / seconds:6.1f} images/s, {cpu / n:.3f} CPU s an image, peak {mb:.0f} MB")
    faster = report("times lightly 1.2.8", rates[1] / rates[0], LEAST_OVER_LIGHTLY, at_least=True)
    small = report("peak MB", ours[3], MOST_MB, at_least=False)
    return int(not (faster and small))


def _make_photographs(folder: Path, n: int) -> None:
    """Real photographs, cut and scaled to 1600 x 1200, each a little different."""
    import numpy as np
    from PIL import Image
    from skimage import data

    folder.mkdir()
    sources = [
        Image.fromarray(getattr(data, name)()).convert("RGB")
        for name in ("astronaut", "coffee", "chelsea", "rocket")
    ]
    for number in range(n):
        source = sources[number % len(sources)].resize((1600, 1200), Image.Resampling.BICUBIC)
        pixels = np.roll(np.asarray(source), 37 * number, axis=1)
        Image.fromarray(pixels).save(folder / f"photo-{number:04d}.jpg", quality=88)


if __name__ == "__main__":
    sys.exit(main())
