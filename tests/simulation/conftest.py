from __future__ import annotations

from tests.stores import migrated_file, migrated_url

__all__ = ["migrated_file", "migrated_url"]
