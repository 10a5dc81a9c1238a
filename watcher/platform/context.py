"""What the handlers share."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.platform.blobs import BlobStore
from watcher.platform.intake import Intake
from watcher.platform.listings import Listings
from watcher.platform.objects.base import Source
from watcher.platform.objects.roles import RoleSessions
from watcher.platform.recent import Recent
from watcher.platform.secrets import Keys
from watcher.platform.settings import PlatformConfig
from watcher.platform.store.users import User
from watcher.platform.vault import Vault


@dataclass(frozen=True, slots=True)
class Platform:
    """The parts of one running platform; safe to share between threads.

    Attributes:
        cleaning_due: set when a dataset was deleted, so that the cleaner of this process looks at once.
        jobs_ready: for each kind of jobs, set when one was added, so that the worker of this process looks at once.
    """

    config: PlatformConfig
    clock: Clock
    database: Database
    keys: Keys
    vault: Vault
    blobs: BlobStore
    listings: Listings
    users: Recent[User]
    sources: Recent[Source]
    intake: Intake
    roles: RoleSessions
    cleaning_due: threading.Event
    jobs_ready: Mapping[str, threading.Event]
