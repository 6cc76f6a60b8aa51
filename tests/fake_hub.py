"""A local hub: enough of the protocol of the Hugging Face Hub to download datasets and models by commit."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "783102a0123456789abcdef0123456789abcdef0"


def _entry(root: Path, file: Path) -> dict[str, object]:
    path = file.relative_to(root).as_posix()
    if file.is_dir():
        return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
    body = file.read_bytes()
    return {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    root: Path
    seen: list[str]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.seen.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path).strip("/")
        for kind in ("datasets", "models"):
            for owner in (self.root / kind).glob("*/*"):
                name = owner.relative_to(self.root / kind).as_posix()
                plain = f"datasets/{name}" if kind == "datasets" else name
                if path == f"api/{kind}/{name}":  # without a revision: the newest
                    return self.api(owner, name, f"revision/{COMMIT}", body)
                if path.startswith(f"api/{kind}/{name}/"):
                    return self.api(owner, name, path.removeprefix(f"api/{kind}/{name}/"), body)
                if path.startswith(f"{plain}/resolve/{COMMIT}/"):
                    return self.file(owner / path.removeprefix(f"{plain}/resolve/{COMMIT}/"))
        self.answer(404)

    do_GET = do_HEAD = do_POST = do

    def api(self, folder: Path, name: str, rest: str, body: bytes) -> None:
        files = [_entry(folder, f) for f in sorted(folder.rglob("*")) if f.is_file()]
        what, _, more = rest.partition("/")
        revision, _, inside = more.partition("/")
        if not COMMIT.startswith(revision) or len(revision) < 7:
            return self.answer(404)
        if what == "revision":
            listing = [{"rfilename": f["path"]} for f in files]
            return self.answer(200, {"id": name, "sha": COMMIT, "siblings": listing, "private": False, "tags": []})
        if what == "tree":
            if "recursive=true" in self.path.lower():
                return self.answer(200, [f for f in files if str(f["path"]).startswith(inside)])
            level = sorted((folder / inside).iterdir()) if (folder / inside).is_dir() else []
            return self.answer(200, [_entry(folder, f) for f in level])
        if what == "paths-info":
            text = body.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
            return self.answer(200, [f for f in files if f["path"] in wanted])
        self.answer(404)

    def file(self, path: Path) -> None:
        if not path.is_file():
            return self.answer(404)
        etag = hashlib.sha1(path.read_bytes()).hexdigest()
        self.answer(200, path.read_bytes(), {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, content: object = b"", headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        for key, value in (headers or {"Content-Type": "application/json"}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests with `handler` in a thread; yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def serve(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `root`/datasets/OWNER/NAME and `root`/models/OWNER/NAME; yield the address and the list of requests."""
    seen: list[str] = []
    with serving(type("Handler", (_Handler,), {"root": root, "seen": seen})) as address:
        yield address, seen
