"""A Hub of repositories in memory on a local port, which speaks the calls that `huggingface_hub` makes."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import unquote, urlsplit

NAME = r"(?P<id>[\w.-]+/[\w.-]+)"
API, GIT = rf"/api/(?P<kind>model|dataset)s/{NAME}", rf"/(?:(?P<kind>dataset)s/)?{NAME}"


@dataclass
class Repository:
    """Files of its commits, the newest last."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1] if self.commits else {}

    @property
    def messages(self) -> list[str]:
        return [message for message, _ in self.commits]

    def sha(self, number: int = -1) -> str:
        number %= max(1, len(self.commits))
        return hashlib.sha1(repr((number, self.commits[: number + 1])).encode()).hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.sha(), self.files
        return next(
            ((self.sha(i), files) for i, (_, files) in enumerate(self.commits) if self.sha(i) == revision), None
        )


@dataclass
class Fault:
    """An answer in place of the right one.

    Args:
        call: Pattern of "METHOD path".
        status: Of the answer; 0 = the connection ends in the middle of what is sent.
        times: So often, then all is well.
    """

    call: str
    status: int
    times: int = 1


class HubServer:
    """Serves while it is entered.

    Args:
        token: Gives its bearer the right to read and write.
        owners: Names under which the bearer may write; the first is the bearer's own.

    Attributes:
        repositories: By kind ("model", "dataset") and id.
        faults: To be met, the first that fits.
        calls: "METHOD path" of all requests.
        received: What was sent, whole bodies.
    """

    def __init__(self, token: str, owners: tuple[str, ...]):
        self.token, self.owners = token, owners
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.received: list[bytes] = []
        self.objects: dict[str, bytes] = {}
        self.lock = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def model(self, name: str) -> Repository:
        return self.repositories["model", name]

    def dataset(self, name: str) -> Repository:
        return self.repositories["dataset", name]

    def fault(self, call: str) -> Fault | None:
        with self.lock:
            found = next((fault for fault in self.faults if fault.times and re.search(fault.call, call)), None)
            if found is not None:
                found.times -= 1
            return found


class Refused(Exception):
    """Status, code and words of an error."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def handle_one(self):
        path = unquote(urlsplit(self.path).path)
        call = f"{self.command} {path}"
        with self.hub.lock:
            self.hub.calls.append(call)
        fault = self.hub.fault(call)
        if fault is not None and fault.status == 0:
            self.rfile.read(min(16, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        with self.hub.lock:
            self.hub.received.append(body)
        try:
            if fault is not None:
                raise Refused(fault.status, "", "as the test wants it")
            for pattern, answer in ROUTES.items():
                if match := re.fullmatch(pattern, call):
                    with self.hub.lock:
                        status, headers, content = answer(self, body, **match.groupdict())
                    return self._send(status, headers, content)
            raise Refused(404, "", f"no such call: {call}")
        except Refused as refused:
            status, code, words = refused.args
            headers = {"X-Error-Message": words} | ({"X-Error-Code": code} if code else {})
            self._send(status, headers, {"error": words})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def log_message(self, *args):
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, headers: dict[str, str], content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # ---- Calls ----

    @property
    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _repository(self, kind: str | None, id: str, writes: bool = False) -> Repository:
        if "Authorization" in self.headers and not self.may_write:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        found = self.hub.repositories.get((kind or "model", id))
        if found is None or (found.private and not self.may_write):
            raise Refused(404 if self.may_write else 401, "RepoNotFound", "Repository not found")
        if writes and (not self.may_write or id.split("/")[0] not in self.hub.owners):
            raise Refused(403, "", "You don't have the rights to write to it")
        return found

    def whoami(self, body):
        if not self.may_write:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return 200, {}, {"name": self.hub.owners[0], "type": "user", "orgs": []}

    def create(self, body):
        self.whoami(body)
        asked = json.loads(body)
        owner = asked["organization"] or self.hub.owners[0]
        if owner not in self.hub.owners:
            raise Refused(403, "", f"You don't have the rights to create a model under the namespace {owner}")
        kind, name = asked.get("type", "model"), f"{owner}/{asked['name']}"
        url = f"{self.hub.address}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return 409, {}, {"url": url, "error": "You already created this repo"}
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repositories[kind, name] = Repository(private)
        return 200, {}, {"url": url, "name": name, "id": name}

    def validate(self, body):
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            return 200, {}, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        return 200, {}, {"errors": [], "warnings": []}

    def info(self, body, kind, id, revision="main"):
        found = self._repository(kind, id)
        return 200, {}, {"id": id, "sha": found.sha(), "siblings": [{"rfilename": name} for name in found.files]}

    def preupload(self, body, kind, id, revision):
        found = self._repository(kind, id, writes=True)

        def answer(file):
            is_text = b"\0" not in base64.b64decode(file["sample"])
            large = not is_text or file["path"].endswith((".safetensors", ".parquet", ".bin"))
            old = found.files.get(file["path"])
            oid = None if old is None or large else hashlib.sha1(b"blob %d\0" % len(old) + old).hexdigest()
            mode = "lfs" if large else "regular"
            return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

        return 200, {}, {"files": [answer(file) for file in json.loads(body)["files"]]}

    def batch(self, body, kind, id):
        self._repository(kind, id, writes=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            if wanted["oid"] not in self.hub.objects:
                wanted["actions"] = {"upload": {"href": f"{self.hub.address}/objects/{wanted['oid']}"}}
            objects.append(wanted)
        return 200, {}, {"transfer": "basic", "objects": objects}

    def put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "", "another content")
        self.hub.objects[oid] = body
        return 200, {}, {}

    def commit(self, body, kind, id, revision):
        found = self._repository(kind, id, writes=True)
        files, message = dict(found.files), ""
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refused(400, "", f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                raise Refused(400, "", f"unknown operation {operation['key']}")
        found.commits.append((message, files))
        url = f"{self.hub.address}/{'datasets/' if kind == 'dataset' else ''}{id}/commit/{found.sha()}"
        return 200, {}, {"success": True, "commitOid": found.sha(), "commitUrl": url}

    def resolve(self, body, kind, id, revision, path):
        at = self._repository(kind, id).at(revision)
        if at is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        sha, files = at
        if path not in files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        return 200, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(files[path]).hexdigest()}"'}, files[path]


ROUTES: dict[str, Callable] = {
    "GET /api/whoami-v2": _Handler.whoami,
    "POST /api/repos/create": _Handler.create,
    "POST /api/validate-yaml": _Handler.validate,
    rf"GET {API}": _Handler.info,
    rf"GET {API}/revision/(?P<revision>[^/]+)": _Handler.info,
    rf"POST {API}/preupload/(?P<revision>[^/]+)": _Handler.preupload,
    rf"POST {API}/commit/(?P<revision>[^/]+)": _Handler.commit,
    rf"POST {GIT}\.git/info/lfs/objects/batch": _Handler.batch,
    "PUT /objects/(?P<oid>[0-9a-f]+)": _Handler.put,
    rf"(?:GET|HEAD) {GIT}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": _Handler.resolve,
}
