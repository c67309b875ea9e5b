"""A stand-in for the hub on this machine: repositories in memory, as many of its answers as sharing a circuit asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(BaseHTTPRequestHandler):
    """Repositories of one commit; the token "good" may write."""

    repositories: dict[str, dict[str, bytes]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if self.headers.get("Authorization") != "Bearer good":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories.setdefault(name, {})
            return self._answer(200, {"url": f"http://{self.headers['Host']}/{name}"})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/{name}/commit/{self._commit(name)}"
            return self._answer(200, {"success": True, "commitOid": self._commit(name), "commitUrl": url})
        return self._answer(404, {"error": path})

    def do_GET(self):
        path = self.path.split("?")[0]
        api = path.startswith("/api/models/")
        name = "/".join(path.split("/")[3:5] if api else path.split("/")[1:3])
        if name not in self.repositories:
            return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        files = self.repositories[name]
        if api:
            siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
            tree = [
                {"type": "file", "path": f, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for f, d in files.items()
            ]
            if "/tree/" in path:
                return self._answer(200, tree)
            return self._answer(200, {"_id": "1", "id": name, "sha": self._commit(name), "siblings": siblings})
        file = path.split("/resolve/")[1].split("/", 1)[1]
        if file not in files:
            return self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        tag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
        return self._answer(200, files[file], {"ETag": tag, "X-Repo-Commit": self._commit(name)})

    do_HEAD = do_GET

    def _commit(self, name: str) -> str:
        return hashlib.sha1(b"".join(self.repositories[name].values())).hexdigest()

    def _answer(self, code: int, value, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for key, text in (
            {"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def hub():
    """(address, repositories) of a hub that lives as long as the block."""
    repositories: dict[str, dict[str, bytes]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"repositories": repositories}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repositories
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
