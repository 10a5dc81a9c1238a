"""Samples of a tag in the forms that labelling tools import."""

from __future__ import annotations

import msgspec

from watcher.lightly.wire.base import Wire
from watcher.lightly.wire.samples import SampleData


class LabelStudioData(Wire, frozen=True, kw_only=True):
    """What a task of Label Studio shows."""

    image: str
    lightly_file_name: str
    lightly_meta_info: SampleData | None = None


class LabelStudioTask(Wire, frozen=True, kw_only=True):
    """A task of Label Studio."""

    id: int
    data: LabelStudioData


class LabelBoxDataRow(Wire, frozen=True, kw_only=True):
    """A row of Labelbox, version 3."""

    external_id: str
    image_url: str


class LabelBoxV4DataRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of Labelbox, version 4, which has names of its own style."""

    row_data: str
    global_key: str
    media_type: str
