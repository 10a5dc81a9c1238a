"""Scenario 30: what the daemon itself writes below a watched prefix."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from sqlalchemy import select

from tests.buckets import SECRET, open_bucket
from tests.integration.daemon.conftest import QUICK_RETRY, TOKEN
from watcher.database.engine import Database
from watcher.domain.clock import SystemClock
from watcher.domain.delivery import DeliverRules, ManifestRules, SinkConfig
from watcher.domain.models import BatchRules, WatchConfig
from watcher.domain.poll_rules import PollRules
from watcher.duties import Duties
from watcher.lightly import datasets, datasources
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceS3
from watcher.metrics import Metrics
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.store import tables


def _watching(kind: str, name: str) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


def test_scenario_30_manifests_below_a_listed_bucket_are_passed_over_and_images_beside_them_are_not(
    database: Database, tmp_path: Path
) -> None:
    with open_bucket() as bucket:
        config = PlatformConfig(
            token=TOKEN,
            datasource_root=tmp_path,
            data_dir=tmp_path / "platform",
            port=0,
            s3_endpoint=bucket.variables["AWS_ENDPOINT"],
        )
        for key in ("a.jpg", "picked/cams-000001.jsonl", "picked/b.jpg", ".lightly/thumbnails/a.jpg"):
            bucket.client.put_object(Bucket=bucket.name, Key=f"in/{key}", Body=b"x")
        server = PlatformServer(config)
        server.start()
        try:
            transport = Transport(server=server.url, token=TOKEN, retry=QUICK_RETRY, read_timeout_s=20)
            dataset_id = datasets.create_dataset(transport, request=DatasetCreateRequest(name="cams"))
            datasource = DatasourceS3(
                full_path=f"s3://{bucket.name}/in",
                purpose="INPUT_OUTPUT",
                s3_region="us-east-1",
                s3_access_key_id="the-key",
                s3_secret_access_key=SECRET,
            )
            datasources.update_datasource(transport, dataset_id=dataset_id, datasource=datasource)
            lake = SinkConfig(
                name="lake", rules=ManifestRules(location=f"s3://{bucket.name}/in/picked", format="jsonl")
            )
            watch = WatchConfig(
                name="cams",
                dataset="cams",
                poll=PollRules(hold_back_s=0),
                batch=BatchRules(min_samples=10_000, max_wait_s=10_000),
                deliver=DeliverRules(sinks=(lake,)),
            )
            duties = Duties(
                database=database,
                transport=transport,
                configs=[watch],
                clock=SystemClock(),
                metrics=Metrics(),
                work_dir=tmp_path,
                server_identity="test",
                stop=threading.Event(),
                watching=_watching,
            )
            duties.poll("cams")
            report = duties.reconcile("cams")
        finally:
            server.stop()
    with database.read() as session:
        names = sorted(session.execute(select(tables.samples.c.file_name)).scalars())
    assert names == ["a.jpg", "picked/b.jpg"]
    assert (report.n_listed, report.n_missing) == (2, 0)
