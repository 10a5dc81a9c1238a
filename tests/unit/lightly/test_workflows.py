"""Workflows against servers that fail in the middle; their success is shown by the contract suite."""

from __future__ import annotations

import pytest

from tests.unit.lightly.conftest import DATASET
from tests.unit.lightly.servers import Reply
from watcher.domain.errors import (
    ApiException,
    DatasetError,
    DeadlineExceededError,
    EmbeddingDoesNotExistError,
    SamplingError,
    ServiceException,
    UnknownOutcomeError,
)
from watcher.lightly.wire.samples import SampleCreateRequest
from watcher.lightly.wire.samplings import SamplingConfig, SamplingCreateRequest
from watcher.lightly.workflows.embeddings import (
    append_embeddings_stream,
    wait_until_processed,
)
from watcher.lightly.workflows.register import (
    build_put_headers,
    ensure_initial_or_upsize_tag,
    ensure_sample,
)
from watcher.lightly.workflows.sampling import run_sampling

TAG = {
    "id": "a" * 24, "datasetId": DATASET, "prevTagId": None, "name": "initial-tag", "bitMaskData": "0x3",
    "totSize": 2, "createdAt": 5,
}  # fmt: skip
REQUEST = SamplingCreateRequest(new_tag_name="picked", method="RANDOM", config=SamplingConfig())


class _Sampling:
    """A server whose job ends as told."""

    def __init__(self, *jobs, tags=(TAG,)) -> None:
        self.jobs = list(jobs)
        self.tags = list(tags)
        self.n_started = 0

    def __call__(self, seen):
        if seen.path.endswith("/sampling"):
            self.n_started += 1
            return {"jobId": "j"}
        if "/jobs/" in seen.path:
            job = self.jobs.pop(0)
            return (
                job
                if isinstance(job, Reply)
                else {"id": "j", "waitTimeTillNextPoll": 0, "createdAt": 1, **job}
            )
        if seen.path.endswith("/tags"):
            return self.tags
        return {**TAG, "id": seen.path.rsplit("/", 1)[1], "name": "picked"}


def _sample(transport, **changes):
    settings = {"dataset_id": DATASET, "embedding_id": "e" * 24, "request": REQUEST, "deadline_s": 20}
    return run_sampling(transport, first_wait_s=0, **{**settings, **changes})


def test_run_sampling_polls_until_finished(start, connect):
    server = _Sampling(
        {"status": "WAITING"},
        {"status": "NEW STATE"},
        {"status": "FINISHED", "result": {"type": "SAMPLING", "data": "b" * 24}},
    )
    seen = []
    tag = _sample(connect(start(server).url), on_progress=lambda job: seen.append(job.status))
    assert tag.id == "b" * 24
    assert seen == ["WAITING", "NEW STATE", "FINISHED"]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"status": "FAILED", "error": "no rows; see http://x/y?sig=abcdefghijkl"}, "no rows"),
        ({"status": "FAILED"}, "does not say why"),
        ({"status": "FINISHED"}, "without a tag"),
        ({"status": "FINISHED", "result": {"type": "SAMPLING", "data": None}}, "without a tag"),
    ],
)
def test_run_sampling_that_fails_is_a_sampling_error(start, connect, job, words):
    with pytest.raises(SamplingError, match=words) as caught:
        _sample(connect(start(_Sampling(job)).url))
    assert isinstance(caught.value, RuntimeError)
    assert "abcdefghijkl" not in str(caught.value)


def test_run_sampling_adopts_a_tag_of_its_name_when_asked(start, connect):
    mine = {**TAG, "id": "c" * 24, "name": "picked"}
    server = _Sampling(tags=[TAG, mine])
    transport = connect(start(server).url)
    assert _sample(transport, adopt_existing=True).id == "c" * 24
    with pytest.raises(DatasetError, match="already"):
        _sample(transport)
    assert server.n_started == 0


def test_run_sampling_that_fails_because_an_earlier_one_took_the_name_counts_as_done(start, connect):
    mine = {**TAG, "id": "c" * 24, "name": "picked"}
    server = _Sampling({"status": "FAILED", "error": "TAG_NAME_EXISTS"})
    answers = server.__call__

    def answer(seen):
        reply = answers(seen)
        if "/jobs/" in seen.path:
            server.tags.append(mine)
        return reply

    assert _sample(connect(start(answer).url), adopt_existing=True).id == "c" * 24


def test_run_sampling_waits_for_the_job_of_a_request_whose_answer_was_lost(start, connect):
    server = _Sampling()
    n_posts = [0]

    def answer(seen):
        if not seen.path.endswith("/sampling"):
            return server(seen)
        n_posts[0] += 1
        if n_posts[0] == 1:
            return Reply(body=b"{", headers={"Content-Length": "99", "Connection": "close"})
        if n_posts[0] == 3:
            server.tags = [TAG, {**TAG, "id": "c" * 24, "name": "picked"}]
        return Reply(409, {"code": "TAG_NAME_EXISTS", "error": "reserved"})

    assert _sample(connect(start(answer).url)).id == "c" * 24
    assert n_posts[0] == 3


def test_run_sampling_of_a_reserved_name_ends_by_the_deadline_or_at_once(start, connect):
    server = _Sampling()

    def answer(seen):
        if seen.path.endswith("/sampling"):
            return Reply(409, {"code": "TAG_NAME_EXISTS", "error": "reserved"})
        return server(seen)

    transport = connect(start(answer).url)
    with pytest.raises(ApiException, match="reserved"):
        _sample(transport)
    with pytest.raises(DeadlineExceededError, match="did not end in time"):
        _sample(transport, adopt_existing=True, deadline_s=0.5)


def test_run_sampling_gives_up_after_many_failing_polls_in_a_row(start, connect, monkeypatch):
    from watcher.domain.backoff import Backoff

    monkeypatch.setattr("watcher.lightly.workflows.sampling.MAX_CONSECUTIVE_FAILURES", 2)
    server = _Sampling(*[Reply(503)] * 99)
    with pytest.raises(ServiceException):
        _sample(connect(start(server).url, retry=Backoff(max_attempts=1)))
    assert len(server.jobs) == 97


def test_ensure_sample_stays_unknown_after_three_tries(start_raw, start, connect):
    n_posts = [0]

    def answer(seen):
        if seen.method == "POST":
            n_posts[0] += 1
            return Reply(body=b"{", headers={"Content-Length": "99", "Connection": "close"})
        return []

    server = start(answer)
    with pytest.raises(UnknownOutcomeError):
        ensure_sample(
            connect(server.url),
            dataset_id=DATASET,
            request=SampleCreateRequest(file_name="a"),
            look_up_first=False,
        )
    assert n_posts[0] == 3
    assert [seen.method for seen in server.seen] == ["POST", "GET", "POST", "GET", "POST"]


def test_ensure_sample_found_is_not_created_again(start, connect):
    found = {"id": "5" * 24, "type": "IMAGE", "fileName": "a"}
    like = {"id": "6" * 24, "type": "IMAGE", "fileName": "ab"}

    def answer(seen):
        return (
            {"full": "http://x/f", "thumb": "http://x/t"}
            if seen.path.endswith("writeurls")
            else [like, found]
        )

    server = start(answer)
    sample = ensure_sample(
        connect(server.url),
        dataset_id=DATASET,
        request=SampleCreateRequest(file_name="a"),
        look_up_first=True,
    )
    assert (sample.sample_id, sample.created, sample.write_urls.thumb) == ("5" * 24, False, "http://x/t")
    assert "POST" not in {seen.method for seen in server.seen}


class _Tags:
    def __init__(self, *, tags, n_samples, replies=()) -> None:
        self.tags = list(tags)
        self.n_samples = n_samples
        self.replies = list(replies)
        self.posts = []

    def __call__(self, seen):
        if seen.path.endswith("/mappings"):
            rest = max(0, self.n_samples - int(seen.query["pageOffset"]))
            return ["x"] * min(rest, int(seen.query["pageSize"]))
        if seen.method == "POST":
            self.posts.append((seen.path.rsplit("/", 1)[1], seen.json))
            tag = {
                **TAG,
                "id": "d" * 24,
                "name": seen.json.get("upsizeTagName", "initial-tag"),
                "totSize": self.n_samples,
            }
            reply = self.replies.pop(0) if self.replies else None
            if reply is None or reply == "lost":
                self.tags.append(tag)
            if reply == "lost":
                return Reply(body=b"{", headers={"Content-Length": "99", "Connection": "close"})
            return reply or {"id": tag["id"]}
        if seen.path.endswith("/tags"):
            return self.tags
        return next(tag for tag in self.tags if tag["id"] == seen.path.rsplit("/", 1)[1])


def _ensure_tag(transport):
    return ensure_initial_or_upsize_tag(
        transport, dataset_id=DATASET, img_type="thumbnail", upsize_tag_name="batch-1"
    )


def test_ensure_tag_makes_the_initial_tag_first(start, connect):
    server = _Tags(tags=[], n_samples=2)
    assert _ensure_tag(connect(start(server).url)).name == "initial-tag"
    assert server.posts == [("initial", {"imgType": "thumbnail", "creator": "USER_PIP"})]


def test_ensure_tag_upsizes_under_the_name_when_samples_were_added(start, connect):
    server = _Tags(tags=[TAG], n_samples=3)
    transport = connect(start(server).url)
    assert _ensure_tag(transport).name == "batch-1"
    assert _ensure_tag(transport).name == "batch-1"
    assert server.posts == [("upsize", {"upsizeTagName": "batch-1", "upsizeTagCreator": "USER_PIP"})]


def test_ensure_tag_makes_nothing_when_nothing_was_added(start, connect):
    server = _Tags(tags=[TAG], n_samples=2)
    assert _ensure_tag(connect(start(server).url)).id == TAG["id"]
    assert server.posts == []


@pytest.mark.parametrize("tags", [[], [TAG]])
def test_ensure_tag_whose_answer_was_lost_is_not_made_twice(start, connect, tags):
    server = _Tags(tags=tags, n_samples=3, replies=["lost"])
    tag = _ensure_tag(connect(start(server).url))
    assert tag.tot_size == 3
    assert len(server.posts) == 1


@pytest.mark.parametrize("code", ["TAG_INITIAL_EXISTS", "TAG_NAME_EXISTS"])
def test_ensure_tag_made_by_somebody_else_meanwhile_is_taken(start, connect, code):
    server = _Tags(tags=[], n_samples=2)

    def answer(seen):
        if seen.method == "POST":
            server.tags.append(TAG)
            return Reply(422, {"code": code, "error": "taken"})
        return server(seen)

    assert _ensure_tag(connect(start(answer).url)).id == TAG["id"]


def test_ensure_tag_other_refusals_are_raised(start, connect):
    server = _Tags(tags=[], n_samples=2, replies=[Reply(403, {"code": "FORBIDDEN"})])
    with pytest.raises(ApiException, match="FORBIDDEN"):
        _ensure_tag(connect(start(server).url))


@pytest.mark.parametrize(
    ("url", "settings", "headers"),
    [
        ("http://127.0.0.1/x", {}, {}),
        ("http://127.0.0.1/x", {"datasource_type": "AZURE"}, {"x-ms-blob-type": "BlockBlob"}),
        ("https://a.blob.core.windows.net/c/x?sig=1", {}, {"x-ms-blob-type": "BlockBlob"}),
        ("https://evil.example/.blob.core.windows.net", {}, {}),
        (
            "https://b.s3.eu-central-1.amazonaws.com/x",
            {"s3_kms_key": "true"},
            {"x-amz-server-side-encryption": "AES256"},
        ),
        (
            "https://b.s3.amazonaws.com/x",
            {"s3_kms_key": "key-1"},
            {"x-amz-server-side-encryption-aws-kms-key-id": "key-1"},
        ),
        ("https://other.example/x", {"s3_kms_key": "true"}, {}),
    ],
)
def test_put_headers_of_the_stores(url, settings, headers):
    built = build_put_headers(url, 5, **settings)
    assert headers.items() <= built.items()
    assert bool(headers) == bool(built)


def test_wait_until_processed_ends_by_deadline_and_tells_a_gone_one(start, connect):
    record = {"id": "e" * 24, "name": "x", "isProcessed": False, "createdAt": 1}
    transport = connect(start(lambda _seen: [record]).url)
    with pytest.raises(DeadlineExceededError):
        wait_until_processed(
            transport, dataset_id=DATASET, embedding_id="e" * 24, deadline_s=0.2, poll_s=0.05
        )
    with pytest.raises(EmbeddingDoesNotExistError):
        wait_until_processed(transport, dataset_id=DATASET, embedding_id="f" * 24, deadline_s=5)


class _Csv:
    def __init__(self, *bodies) -> None:
        self.bodies = list(bodies)
        self.url = ""

    def __call__(self, seen):
        if seen.path.endswith("readCSVUrl"):
            return f"{self.url}/blob?sig=1"
        return self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]


def _append(start, connect, server, out, rows):
    made = start(server)
    server.url = made.url
    return append_embeddings_stream(
        connect(made.url), dataset_id=DATASET, embedding_id="e" * 24, out_path=out, new_rows=rows
    )


CSV = b"filenames,embedding_0,labels\r\na,1.0,0\r\nb,2.0,0\r\n"


def test_append_merges_and_survives_a_broken_download(start, connect, tmp_path):
    cut = Reply(body=CSV[:-5], headers={"Content-Length": str(len(CSV)), "Connection": "close"})
    out = tmp_path / "out.csv"
    found = _append(start, connect, _Csv(cut, Reply(body=CSV)), out, {"b": [7.5, 1], "c": [8.5, 2]})
    assert out.read_bytes() == b"filenames,embedding_0,labels\r\na,1.0,0\r\nb,7.5,1\r\nc,8.5,2\r\n"
    assert (found.n_rows, found.dim) == (3, 1)


@pytest.mark.parametrize(
    ("body", "rows", "words"),
    [
        (b"", {}, "empty"),
        (b"<html>", {}, "'filenames'"),
        (CSV, {"c": [1.0, 2.0, 3]}, "4 cells"),
        (CSV + b'"x', {}, "cannot be read"),
    ],
)
def test_append_leaves_the_old_file_when_something_is_wrong(start, connect, tmp_path, body, rows, words):
    out = tmp_path / "out.csv"
    out.write_bytes(b"old")
    with pytest.raises(DatasetError, match=words):
        _append(start, connect, _Csv(Reply(body=body)), out, rows)
    assert out.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
