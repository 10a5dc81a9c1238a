"""Calls a platform as any client would, and checks the form of every answer."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from typing import Any, Self

import jsonschema
import requests


class Caller:
    """A session with one token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.params = {"token": token}
        self._document = requests.get(f"{url}/openapi.json", timeout=10).json()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.session.close()

    def request(self, method: str, path: str, **arguments) -> requests.Response:
        """The bare answer."""
        return self.session.request(method, self.url + path, timeout=60, **arguments)

    def __call__(self, method: str, path: str, expected: int = 200, **arguments) -> Any:
        """The body of an answer whose status and form are as declared."""
        response = self.request(method, path, **arguments)
        assert response.status_code == expected, (method, path, response.status_code, response.text)
        assert "Date" in response.headers
        body = response.json() if response.content else None
        if expected >= 400:
            assert body["error"] == body["message"]
            assert body["code"]
        else:
            self._check_form(method, path, expected, body)
        return body

    def _check_form(self, method: str, path: str, status: int, body: Any) -> None:
        operation = self._find(method, path)
        content = operation["responses"][str(status)].get("content")
        if content is None:
            assert body is None
            return
        schema = {**content["application/json"]["schema"], "components": self._document["components"]}
        jsonschema.Draft202012Validator(close(schema)).validate(body)

    def _find(self, method: str, path: str) -> dict[str, Any]:
        parts = path.split("?", maxsplit=1)[0].lstrip("/").split("/")
        for template, methods in sorted(
            self._document["paths"].items(), key=lambda item: [part[:1] == "{" for part in item[0].split("/")]
        ):
            wanted = template.strip("/").split("/")
            if len(wanted) == len(parts) and all(
                a == b or a[0] == "{" for a, b in zip(wanted, parts, strict=True)
            ):
                return methods[method.lower()]
        raise AssertionError(f"{path} is not described")

    def refused(self, method: str, path: str, status: int, code: str, **arguments) -> str:
        """Expects a refusal; gives its text."""
        body = self(method, path, status, **arguments)
        assert body["code"] == code, body
        return body["error"]

    # What most stories begin with.

    def create_dataset(self, name: str = "pictures") -> str:
        return "/v1/datasets/" + self("POST", "/v1/datasets", 201, json={"name": name})["id"]

    def set_local(self, dataset: str, path: str = "in") -> None:
        self(
            "PUT",
            f"{dataset}/datasource",
            json={"type": "LOCAL", "fullPath": path, "purpose": "INPUT_OUTPUT"},
        )

    def create_samples(self, dataset: str, names: Sequence[str]) -> list[str]:
        return [self("POST", f"{dataset}/samples", 201, json={"fileName": name})["id"] for name in names]

    def create_initial_tag(self, dataset: str) -> str:
        return self("POST", f"{dataset}/tags/initial", 201, json={"imgType": "meta"})["id"]

    def upload_embedding(
        self, dataset: str, names: Sequence[str], vectors: Any, name: str = "default"
    ) -> str:
        reply = self("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": name})
        response = requests.put(reply["signedWriteUrl"], data=build_csv(names, vectors), timeout=60)
        assert response.status_code == 200, response.text
        return reply["embeddingId"]

    def wait(self, job_id: str, limit_s: float = 90.0) -> dict[str, Any]:
        """The job when it has ended."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            job = self("GET", f"/v1/jobs/{job_id}")
            if job["status"] in ("FINISHED", "FAILED"):
                return job
            time.sleep(0.05)
        raise AssertionError("the job did not end")


def close(schema: Any) -> Any:
    """The schema without room for fields that are not declared, as the strict client reads it."""
    if isinstance(schema, list):
        return [close(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


def build_csv(names: Sequence[str], vectors: Any) -> bytes:
    """An embedding file as the clients write it."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["filenames", *(f"embedding_{i}" for i in range(len(vectors[0]))), "labels"])
    for name, vector in zip(names, vectors, strict=True):
        writer.writerow([name, *vector, 0])
    return file.getvalue().encode()
