"""Datasource Watcher: a client, a daemon and a self-hosted platform for the Lightly API.

The way of the data: a datasource is listed by `watcher.poll`, what it lists is written to the ledger in
`watcher.store`, cut into batches, and each batch goes down the steps in `watcher.jobs`. `docs/architecture.md`
tells the rest.
"""

__version__ = "0.1.0"
