"""A model of the API's server: honest about what it was told, as sloppy as the protocol allows.

Names of samples are not unique here unless the profile says so: what the client repeats without looking shows as a
double.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.simulation.objects import Datasource
from tests.simulation.profile import Profile
from tests.simulation.remote import (
    Answer,
    Refusal,
    RemoteDataset,
    RemoteEmbedding,
    RemoteJob,
    RemoteSample,
    RemoteTag,
    format_date,
    refuse,
    show_dataset,
    show_sample,
    show_tag,
)
from watcher.domain.bitmask import BitMask

API = "http://api.sim"
OBJECTS = "http://objects.sim"
TOKEN = "simulated-token"


@dataclass
class _Listing:
    from_s: int
    to_s: int
    rows: list[str] | None
    after: tuple[Any, ...]
    issued_at: float


class Server:
    """Answers requests one at a time; each is whole before the next."""

    def __init__(self, profile: Profile, *, now: Callable[[], float]) -> None:
        self.profile = profile
        self.rng = profile.build_rng("server")
        self.clock_offset_s = profile.server_offset_s
        self.datasets: list[RemoteDataset] = []
        self.datasources: dict[str, Datasource] = {}
        self.calm = False
        self.violations: list[str] = []
        self._now = now
        self._n_ids = 0
        self._listings: dict[str, _Listing] = {}
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []
        self._add_routes()

    def now_s(self) -> float:
        """Unix time by the server's clock."""
        return self.profile.epoch_s + self._now() + self.clock_offset_s

    def new_id(self) -> str:
        self._n_ids += 1
        return f"{self._n_ids:024x}"

    def handle(self, method: str, url: str, body: bytes) -> Answer:
        """Carries one request out."""
        self._settle()
        parts = urlsplit(url)
        if url.startswith(OBJECTS):
            return self._handle_object(method, parts.path, parts.query, body)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if query.pop("token", None) != TOKEN:
            return refuse(Refusal(401, "UNAUTHORIZED"))
        for wanted, pattern, handler in self._routes:
            match = pattern.fullmatch(parts.path)
            if wanted == method and match is not None:
                try:
                    found = handler(*map(unquote, match.groups()), query, body)
                except Refusal as refusal:
                    return refuse(refusal)
                return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
        return refuse(Refusal(404, "NOT_FOUND", f"no such endpoint: {method} {parts.path}"))

    def _add_routes(self) -> None:
        one = r"/v1/datasets/([0-9a-f]{24})"
        tag, embedding, sample = (
            f"{one}/tags/([0-9a-f]{{24}})",
            f"{one}/embeddings/([0-9a-f]{{24}})",
            f"{one}/samples/([0-9a-f]{{24}})",
        )
        for method, path, handler in (
            ("GET", r"/v1/datasets/query/name/([^/]+)", self._find_datasets),
            ("GET", r"/v1/datasets", self._list_datasets),
            ("POST", r"/v1/datasets", self._create_dataset),
            ("PUT", f"{one}/datasource", lambda _id, _query, _body: {}),
            ("GET", f"{one}/datasource/processedUntilTimestamp", self._get_mark),
            ("PUT", f"{one}/datasource/processedUntilTimestamp", self._put_mark),
            ("GET", f"{one}/datasource/list", self._list),
            ("GET", f"{one}/mappings", self._get_mapping),
            ("GET", f"{one}/samples", self._find_samples),
            ("POST", f"{one}/samples", lambda *call: {"id": self._create_sample(*call)["id"]}),
            ("GET", sample, lambda i, s, _q, _b: show_sample(self.find(i).find_sample(s))),
            ("PUT", sample, self._update_sample),
            ("GET", f"{sample}/writeurls", lambda i, s, _q, _b: self._write_urls(self.find(i), s)),
            ("GET", f"{sample}/readurl", self._read_url),
            ("GET", f"{one}/tags", lambda i, _q, _b: [show_tag(self.find(i), t) for t in self.find(i).tags]),
            ("POST", f"{one}/tags", self._create_tag),
            ("POST", f"{one}/tags/initial", self._create_initial),
            ("POST", f"{one}/tags/upsize", self._upsize),
            ("GET", tag, lambda i, t, _q, _b: show_tag(self.find(i), self.find(i).find_tag(t))),
            ("GET", f"{one}/embeddings", self._list_embeddings),
            ("GET", f"{one}/embeddings/writeCSVUrl", self._promise_embedding),
            ("DELETE", embedding, self._delete_embedding),
            ("POST", f"{embedding}/sampling", self._sample),
            ("GET", r"/v1/jobs/([0-9a-f]{24})", self._get_job),
        ):
            self._routes.append((method, re.compile(path), handler))
        if not self.profile.is_old_server:
            create = re.compile(f"{one}/samples/withWriteUrls")
            self._routes.append(("POST", create, self._create_sample))

    def find(self, dataset_id: str) -> RemoteDataset:
        for dataset in self.datasets:
            if dataset.id == dataset_id:
                return dataset
        raise Refusal(404, "DATASET_UNKNOWN")

    # Datasets and marks.

    def _list_datasets(self, query: dict[str, str], _body: bytes) -> list[dict[str, Any]]:
        offset = int(query.get("pageOffset", 0))
        return [show_dataset(dataset) for dataset in self.datasets][offset:]

    def _find_datasets(self, name: str, query: dict[str, str], _body: bytes) -> list[dict[str, Any]]:
        if self.profile.is_old_server:
            raise Refusal(404, "NOT_FOUND")
        offset = int(query.get("pageOffset", 0))
        return [show_dataset(each) for each in self.datasets if each.name == name][offset:]

    def _create_dataset(self, _query: dict[str, str], body: bytes) -> dict[str, str]:
        name = json.loads(body)["name"]
        if any(each.name == name for each in self.datasets):
            raise Refusal(409, "DATASET_NAME_EXISTS")
        return {"id": self.add_dataset(name).id}

    def add_dataset(self, name: str) -> RemoteDataset:
        datasource = self.datasources.setdefault(name, Datasource())
        self.datasets.append(RemoteDataset(self.new_id(), name, datasource))
        return self.datasets[-1]

    def _get_mark(self, dataset_id: str, _query: dict[str, str], _body: bytes) -> dict[str, int]:
        return {"processedUntilTimestamp": self.find(dataset_id).mark_s}

    def _put_mark(self, dataset_id: str, _query: dict[str, str], body: bytes) -> dict[str, str]:
        dataset = self.find(dataset_id)
        dataset.mark_s = json.loads(body)["processedUntilTimestamp"]
        dataset.told_marks.add(dataset.mark_s)
        return {}

    # Listings.

    def _list(self, dataset_id: str, query: dict[str, str], _body: bytes) -> dict[str, Any]:
        dataset, now = self.find(dataset_id), self._now()
        token = query.get("cursor")
        if token is None:
            from_s, to_s = int(query["from"]), int(query["to"])
            rows = None
            if self.profile.lists_a_snapshot:
                rows = [name for name, _ in dataset.datasource.list(now, from_s, to_s)]
            listing = _Listing(from_s, to_s, rows, (), now)
        else:
            known = self._listings.get(token)
            if known is None or now - known.issued_at > self.profile.cursor_ttl_s:
                raise Refusal(400, "CURSOR_EXPIRED")
            listing = known
        found = dataset.datasource.list(now, listing.from_s, listing.to_s)
        if listing.rows is not None:
            found = [each for each in found if each[0] in listing.rows]
        keyed = sorted(
            ((self.profile.build_key(name, version.modified_s), name) for name, version in found),
        )
        rest = [(key, name) for key, name in keyed if key > listing.after]
        size = self.profile.page_size
        odd = not self.calm and self.rng.random() < self.profile.odd_page_rate
        if odd:
            size = self.rng.randrange(size + 1)
        page, more = rest[:size], len(rest) > size
        names = [name for _, name in page]
        if odd:
            names += [name for key, name in keyed if key <= listing.after][: self.rng.randrange(3)]
            self.rng.shuffle(names)
        after = page[-1][0] if page else listing.after
        cursor = f"c{len(self._listings)}"
        self._listings[cursor] = _Listing(listing.from_s, listing.to_s, listing.rows, after, now)
        if odd and more and token is not None and self.rng.random() < 0.2:
            cursor = token  # a server that turns in a circle
        return {
            "hasMore": more,
            "cursor": cursor,
            "data": [
                {"fileName": name, "readUrl": self.sign("o", dataset.id, name, self.profile.url_ttl_s)}
                for name in names
            ],
        }

    # Samples.

    def _find_samples(self, dataset_id: str, query: dict[str, str], _body: bytes) -> list[dict[str, Any]]:
        found = self.find(dataset_id).samples
        if "fileName" in query and not self.profile.ignores_filters:
            found = [sample for sample in found if sample.name == query["fileName"]]
        return [show_sample(sample) for sample in found]

    def _create_sample(self, dataset_id: str, _query: dict[str, str], body: bytes) -> dict[str, Any]:
        dataset, request = self.find(dataset_id), json.loads(body)
        known = next((each for each in dataset.samples if each.name == request["fileName"]), None)
        if known is None or not self.profile.knows_names:
            if known is not None:
                self.violations.append(f"{known.name!r} was registered twice")
            known = RemoteSample(self.new_id(), request["fileName"], request)
            dataset.samples.append(known)
        return {"id": known.id, "sampleWriteUrls": self._write_urls(dataset, known.id)}

    def _update_sample(
        self, dataset_id: str, sample_id: str, _query: dict[str, str], body: bytes
    ) -> dict[str, Any]:
        self.find(dataset_id).find_sample(sample_id).request |= json.loads(body)
        return {}

    def _write_urls(self, dataset: RemoteDataset, sample_id: str) -> dict[str, str]:
        dataset.find_sample(sample_id)
        ttl_s = self.profile.url_ttl_s
        return {kind: self.sign(f"s-{kind}", dataset.id, sample_id, ttl_s) for kind in ("full", "thumb")}

    def _read_url(self, dataset_id: str, sample_id: str, query: dict[str, str], _body: bytes) -> str:
        dataset = self.find(dataset_id)
        sample = dataset.find_sample(sample_id)
        kind = "thumb" if query.get("type") == "thumbnail" else "full"
        if kind == "full" and "full" not in sample.files:
            return self.sign("o", dataset.id, sample.name, self.profile.url_ttl_s)
        return self.sign(f"s-{kind}", dataset.id, sample_id, self.profile.url_ttl_s)

    def _get_mapping(self, dataset_id: str, query: dict[str, str], _body: bytes) -> list[str]:
        samples = self.find(dataset_id).samples
        values = [sample.name if query.get("field") == "fileName" else sample.id for sample in samples]
        offset, size = int(query.get("pageOffset", 0)), int(query.get("pageSize", 10**9))
        return values if self.profile.is_old_server else values[offset : offset + size]

    # Tags.

    def _check_free(self, dataset: RemoteDataset, name: str) -> None:
        held = self.profile.reserves_names and any(
            job.tag_name == name and job.status == "RUNNING" for job in dataset.jobs
        )
        if held or any(tag.name == name for tag in dataset.tags):
            raise Refusal(400, "TAG_NAME_EXISTS")

    def _add_tag(self, dataset: RemoteDataset, name: str, mask: BitMask, **facts: Any) -> dict[str, str]:
        tag = RemoteTag(self.new_id(), name, mask, int(self.now_s() * 1000), **facts)
        dataset.tags.append(tag)
        return {"id": tag.id}

    def _create_initial(self, dataset_id: str, _query: dict[str, str], body: bytes) -> dict[str, str]:
        dataset = self.find(dataset_id)
        if dataset.tags:
            raise Refusal(400, "TAG_INITIAL_EXISTS")
        dataset.tags_size = len(dataset.samples)
        name = json.loads(body).get("name", "initial-tag")
        return self._add_tag(dataset, name, BitMask.from_length(dataset.tags_size))

    def _create_tag(self, dataset_id: str, _query: dict[str, str], body: bytes) -> dict[str, str]:
        dataset, request = self.find(dataset_id), json.loads(body)
        mask = BitMask.from_hex(request["bitMaskData"])
        if request["totSize"] > dataset.tags_size or any(each >= request["totSize"] for each in mask):
            raise Refusal(400, "DATASET_TAG_INVALID")
        self._check_free(dataset, request["name"])
        previous = dataset.find_tag(request["prevTagId"])
        return self._add_tag(dataset, request["name"], mask, prev_id=previous.id)

    def _upsize(self, dataset_id: str, _query: dict[str, str], body: bytes) -> dict[str, str]:
        dataset, name = self.find(dataset_id), json.loads(body)["upsizeTagName"]
        if not dataset.tags:
            raise Refusal(404, "TAG_NO_TAG_IN_DATASET")
        if len(dataset.samples) == dataset.tags_size:
            return {"id": dataset.tags[0].id}
        self._check_free(dataset, name)
        everything = BitMask.from_length(len(dataset.samples))
        added = everything - BitMask.from_length(dataset.tags_size)
        dataset.tags[0].mask, dataset.tags_size = everything, len(dataset.samples)
        return self._add_tag(dataset, name, added, prev_id=dataset.tags[0].id)

    # Embeddings and samplings.

    def _list_embeddings(self, dataset_id: str, _query: dict[str, str], _body: bytes) -> list[dict[str, Any]]:
        return [
            {"id": e.id, "name": e.name, "isProcessed": e.names is not None, "createdAt": e.created_ms}
            for e in self.find(dataset_id).embeddings
        ]

    def _promise_embedding(self, dataset_id: str, query: dict[str, str], _body: bytes) -> dict[str, str]:
        dataset, name = self.find(dataset_id), query["name"]
        known = next((each for each in dataset.embeddings if each.name == name), None)
        if known is not None and (known.names is not None or self.profile.refuses_promised_names):
            raise Refusal(400, "EMBEDDING_NAME_EXISTS")
        if known is None:
            known = RemoteEmbedding(self.new_id(), name, int(self.now_s() * 1000))
            dataset.embeddings.append(known)
        url = self.sign("e", dataset.id, known.id, self.profile.url_ttl_s)
        return {"signedWriteUrl": url, "embeddingId": known.id}

    def _delete_embedding(
        self, dataset_id: str, embedding_id: str, _query: dict[str, str], _body: bytes
    ) -> dict[str, str]:
        dataset = self.find(dataset_id)
        embedding = dataset.find_embedding(embedding_id)
        dataset.embeddings.remove(embedding)
        dataset.deleted_embeddings.append(embedding)
        return {}

    def _sample(
        self, dataset_id: str, embedding_id: str, _query: dict[str, str], body: bytes
    ) -> dict[str, str]:
        dataset, request = self.find(dataset_id), json.loads(body)
        embedding = dataset.find_embedding(embedding_id)
        if embedding.names is None:
            raise Refusal(400, "EMBEDDING_NOT_READY")
        if len(embedding.names) < dataset.tags_size:
            raise Refusal(400, "EMBEDDING_ROW_COUNT_INVALID")
        name, preselected_id = request["newTagName"], request.get("preselectedTagId")
        self._check_free(dataset, name)
        query_tag = dataset.find_tag(request.get("queryTagId") or dataset.tags[0].id)
        before = BitMask() if preselected_id is None else dataset.find_tag(preselected_id).mask
        open_ones = list(query_tag.mask - before)
        n_samples = int(request["config"]["stoppingCondition"]["nSamples"])
        n_new = min(len(open_ones), max(0, n_samples - len(before)))
        picked = BitMask.from_indices(self.rng.sample(open_ones, n_new))

        def end() -> str:
            self._check_free(dataset, name)
            return self._add_tag(dataset, name, before | picked, preselected_id=preselected_id)["id"]

        ends_at = self._now() + self.rng.choice((0.0, 0.5, 20.0))
        job = RemoteJob(self.new_id(), name, ends_at, end)
        dataset.jobs.append(job)
        return {"jobId": job.id}

    def _get_job(self, job_id: str, _query: dict[str, str], _body: bytes) -> dict[str, Any]:
        for dataset in self.datasets:
            for job in dataset.jobs:
                if job.id == job_id:
                    shown = {
                        "id": job.id,
                        "status": job.status,
                        "waitTimeTillNextPoll": 1,
                        "createdAt": 0,
                        "datasetId": dataset.id,
                    }
                    if job.status == "FINISHED":
                        shown["result"] = {"type": "SAMPLING", "data": job.result}
                    if job.status == "FAILED":
                        shown["error"] = job.result
                    return shown
        raise Refusal(404, "JOB_UNKNOWN")

    def _settle(self) -> None:
        """What the server does by itself: reads CSVs, ends jobs."""
        now = self._now()
        for dataset in self.datasets:
            for embedding in dataset.embeddings:
                if embedding.names is None and embedding.processed_at <= now:
                    embedding.names = embedding.sent_names
            for job in dataset.jobs:
                if job.status == "RUNNING" and job.ends_at <= now:
                    job.status = "ENDING"  # its own name is free for it
                    try:
                        job.result = job.end()
                        job.status = "FINISHED"
                    except Refusal as refusal:
                        job.result, job.status = refusal.text, "FAILED"

    # Objects behind signed URLs.

    def sign(self, kind: str, dataset_id: str, name: str, ttl_s: float) -> str:
        expires_s = int(self.now_s() + ttl_s)
        return f"{OBJECTS}/{kind}/{dataset_id}/{quote(name, safe='')}?expires={expires_s}&signature=0123456789abcdef"

    def _handle_object(self, method: str, path: str, query: str, body: bytes) -> Answer:
        kind, dataset_id, name = path.lstrip("/").split("/", 2)
        name = unquote(name)
        if int(parse_qs(query)["expires"][0]) < self.now_s():
            return Answer(403, b"the signature expired")
        dataset = self.find(dataset_id)
        if kind == "o":
            return self._read_object(dataset, name)
        if kind == "e":
            return self._take_csv(dataset, name, body)
        sample = dataset.find_sample(name)
        file_kind = kind.partition("-")[2]
        if method == "PUT":
            sample.files[file_kind] = body
            return Answer(200, b"")
        if file_kind not in sample.files:
            return Answer(404, b"no such file")
        return Answer(200, sample.files[file_kind])

    def _read_object(self, dataset: RemoteDataset, name: str) -> Answer:
        stored = dataset.datasource.objects.get(name)
        version = None if stored is None else stored.find_version(self._now())
        if version is None:
            return Answer(404, b"no such object")
        etag = f'"{zlib.crc32(version.body):x}"'
        return Answer(200, version.body, {"ETag": etag, "Last-Modified": format_date(version.modified_s)})

    def _take_csv(self, dataset: RemoteDataset, embedding_id: str, body: bytes) -> Answer:
        try:
            embedding = dataset.find_embedding(embedding_id)
        except Refusal:
            return Answer(404, b"no such embedding")
        embedding.sent_names = [row[0] for row in csv.reader(io.StringIO(body.decode(), newline=""))][1:]
        embedding.processed_at = self._now() + self.rng.choice((0.0, 0.0, 3.0))
        return Answer(200, b"")
