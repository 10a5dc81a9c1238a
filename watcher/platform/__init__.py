"""The self-hosted platform: a server that speaks the Lightly API over datasources of one's own.

`server.PlatformServer` runs it, embedded or alone; `app.build_app` is the bare application. One module a resource,
named as in `watcher.lightly`; `docs/platform.md` tells what it promises.
"""
