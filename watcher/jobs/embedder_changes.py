"""Vectors of two embedders cannot be compared: settings that lead to another one are refused."""

from __future__ import annotations

from collections.abc import Mapping

from watcher.database.engine import Database
from watcher.domain.errors import EmbedderChangedError
from watcher.embedders.base import Embedder
from watcher.store import embedder_pins


def refuse_changes(database: Database, embedders: Mapping[str, Embedder], *, changing: str | None) -> None:
    """Refuses embedders, by name of the watch, that are not those of their datasets' vectors.

    Args:
        database: the store.
        embedders: what the settings lead to.
        changing: a watch whose embedder is about to be changed.

    Raises:
        EmbedderChangedError: the text names the watches, both embedders, and the ways out.
    """
    with database.read() as session:
        chosen = embedder_pins.load_embedders(session)
    problems = [
        explain_change(name, old=chosen[name], new=embedder.name)
        for name, embedder in embedders.items()
        if name != changing and chosen.get(name, embedder.name) != embedder.name
    ]
    if problems:
        raise EmbedderChangedError("\n".join(problems))


def explain_change(watch: str, *, old: str, new: str) -> str:
    """What to tell when the settings lead to another embedder than the dataset has."""
    return (
        f"the vectors of the watch {watch!r} come from the embedder {old}, but its settings lead to {new}, whose "
        f"vectors cannot be compared with them: set WATCHER_WATCHES__{watch.upper()}__EMBED__... back, or stop the "
        f"daemon and compute all vectors anew by `watcher reembed {watch}`"
    )
