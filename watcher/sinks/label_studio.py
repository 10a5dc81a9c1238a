"""Tasks in a project of Label Studio, by reference to the image, each once.

A task's data holds its natural key (`watcher_key`) and the delivery's (`watcher_delivery`). Before anything is imported
the project is asked for the tasks of this delivery, so that a repeat adds only what is missing.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from watcher.domain.crash_points import crash_point
from watcher.domain.delivery import ImageReference, LabelStudioRules
from watcher.domain.errors import DeliveryError, DeliveryRefusedError, NotFoundException
from watcher.sinks.base import Handover, PickedSample, Receipt, SinkParts
from watcher.sinks.label_studio_api import LabelStudioApi, Project
from watcher.sinks.place import describe_place

DEFAULT_LABEL_CONFIG = (
    '<View><Image name="image" value="${image_field}"/>'
    '<Choices name="label" toName="image" choice="multiple" showInline="true">'
    '<Choice value="relevant"/><Choice value="not relevant"/><Choice value="unclear"/></Choices></View>'
)
_LOOK_UP_PAGE = 200
# Several watches may share a project that does not exist yet.
_CREATING = threading.Lock()


class LabelStudioSink:
    """Imports tasks; keeps the ids that the server gives them."""

    def __init__(self, rules: LabelStudioRules, parts: SinkParts) -> None:
        self._rules = rules
        self._api = LabelStudioApi(rules, parts)
        self._base = rules.url.rstrip("/")
        self.reference: ImageReference = rules.image

    def deliver(self, handover: Handover) -> Receipt:
        """Imports the tasks that the project does not have yet.

        Raises:
            DeliveryRefusedError: the project does not exist and is not to be made.
            WatcherError: the server failed, refused the token, or does not take the tasks.
        """
        project = self._ensure_project()
        try:
            n_new = self._import_missing(handover, project)
        except NotFoundException as error:
            raise DeliveryError(
                f"project {project.id} ({project.title!r}) of {describe_place(self._base)} was deleted meanwhile"
            ) from error
        return Receipt(
            location=f"{describe_place(self._base)}/projects/{project.id}/data",
            facts={"project": project.id, "n_new": n_new},
        )

    def _import_missing(self, handover: Handover, project: Project) -> int:
        known = dict(self._iter_known(handover, project))
        n_new = 0
        for chunk in handover.iter_chunks(self._rules.max_tasks, 0):
            handover.check()
            keys = {compute_task_key(handover.id, pick.line.file_name): pick for pick in chunk}
            missing = {key: pick for key, pick in keys.items() if key not in known}
            if missing:
                tasks = [self._build_task(handover, key, pick) for key, pick in missing.items()]
                ids = self._api.post_tasks(project, tasks)
                crash_point("label_studio.tasks_imported")
                n_new += len(tasks)
                known.update(zip(missing, ids, strict=True))
            handover.record_tasks({pick.sample_id: str(known[key]) for key, pick in keys.items()})
        return n_new

    def _iter_known(self, handover: Handover, project: Project) -> Iterator[tuple[str, int]]:
        for task in self._api.iter_tasks(
            project, field="watcher_delivery", value=handover.id, page_size=_LOOK_UP_PAGE
        ):
            handover.check()
            key = task.data.get("watcher_key")
            if isinstance(key, str):
                yield key, task.id

    def _build_task(self, handover: Handover, key: str, pick: PickedSample) -> dict[str, Any]:
        line = pick.line
        return {
            "data": {
                self._rules.image_field: self._compute_image(handover, pick),
                "file_name": line.file_name,
                "watch": line.watch,
                "batch": line.batch,
                "rank": line.rank,
                "reason": msgspec.json.encode(line.reason).decode(),
                "watcher_delivery": handover.id,
                "watcher_key": key,
            }
        }

    def _compute_image(self, handover: Handover, pick: PickedSample) -> str:
        if self._rules.image is not ImageReference.URI:
            return pick.line.read_url
        prefix = self._rules.image_prefix
        if prefix is None:
            prefix = f"{(handover.source or '').rstrip('/')}/"
            if "://" not in prefix:
                raise DeliveryRefusedError(
                    f"the datasource of watch {handover.watch!r} is no bucket, so its objects have no address of "
                    "their own: set the sink's IMAGE_PREFIX, or its IMAGE to redirect; then `watcher replay`"
                )
        # In a query, as Label Studio has it for local files, a name must not end the query.
        return prefix + (quote(pick.line.file_name) if "?" in prefix else pick.line.file_name)

    def _ensure_project(self) -> Project:
        rules = self._rules
        place = describe_place(self._base)
        if rules.project.isdecimal():
            try:
                return self._api.fetch_project(int(rules.project))
            except NotFoundException as error:
                raise DeliveryRefusedError(
                    f"{place} has no project {rules.project}, or not for this token: set the sink's PROJECT to a "
                    "title or to the number of one that exists, then `watcher replay`"
                ) from error
        with _CREATING:
            found = self._api.find_project(rules.project)
            if found is not None:
                return found
            if not rules.create:
                raise DeliveryRefusedError(
                    f"{place} has no project {rules.project!r}, or not for this token: make it, or set the sink's "
                    "CREATE to true; then `watcher replay`"
                )
            config = rules.label_config or DEFAULT_LABEL_CONFIG.replace("{image_field}", rules.image_field)
            project = self._api.post_project(rules.project, config)
            crash_point("label_studio.project_created")
            return project


def compute_task_key(delivery_id: str, file_name: str) -> str:
    """The natural key of a task: the same file in a later delivery is another task."""
    return str(uuid.uuid5(uuid.UUID(delivery_id), file_name))
