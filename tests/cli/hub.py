"""A stand-in for the model hub on loopback: one repository, served as the hub's client asks for it."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`files` of `repository`; those in `broken` end too early, those in `stuck` never; `paths` were asked for."""

    repository: str
    files: Mapping[str, bytes]
    broken: frozenset[str] = frozenset()
    stuck: frozenset[str] = frozenset()
    paths: list[str] = field(default_factory=list)
    port: int = 0
    holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Not on the test's standard error."""

    def _answer(self, *, with_body: bool) -> None:
        hub = self.hub
        path = self.path.partition("?")[0]
        hub.paths.append(path)
        api = f"/api/models/{hub.repository}"
        resolve = f"/{hub.repository}/resolve/{COMMIT}/"
        if path in {api, f"{api}/revision/main"}:
            siblings = [{"rfilename": name} for name in hub.files]
            self._send(json.dumps({"id": hub.repository, "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"{api}/tree/{COMMIT}":
            self._send(json.dumps([_entry(name, body) for name, body in hub.files.items()]).encode())
        elif path.startswith(resolve) and (name := path.removeprefix(resolve)) in hub.files:
            if with_body and name in hub.stuck:
                hub.holding.set()
                hub.released.wait()
            self._send(hub.files[name], with_body=with_body, cut=name in hub.broken)
        else:
            self._send(b'{"error": "Repository not found"}', status=404)

    def _send(self, body: bytes, *, status: int = 200, with_body: bool = True, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{_digest(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut


def _entry(name: str, body: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(body), "oid": _digest(body)}


def _digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    """Serve the hub until the block ends."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()
