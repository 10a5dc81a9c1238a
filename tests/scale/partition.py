"""A way to Postgres that can be cut so that nobody is told: connections stay, new ones are taken, and nothing comes."""

from __future__ import annotations

import contextlib
import socket
import threading


class Way:
    """Passes bytes on; while it is cut it keeps them, as a network does that loses packets and sends them again."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.n_kept = 0  # pieces that had to wait
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._wait()
        with client:
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                return
            with server:
                server.settimeout(None)
                back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
                back.start()
                self._pass(client, server)
                back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # ends the other direction's recv too

    def _wait(self) -> None:
        if self.is_cut:
            self.n_kept += 1
        self._whole.wait()


def replace_port(url: str, port: int) -> str:
    """The same database by another port of this machine."""
    head, _, tail = url.rpartition("@")
    place, slash, name = tail.partition("/")
    host = place.partition(":")[0]
    return f"{head}@{host}:{port}{slash}{name}"
