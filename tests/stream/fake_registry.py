"""A schema registry in memory that keeps the documented contract, for tests.

`POST /subjects/NAME/versions` gives a schema's number, the same for the same schema under every subject;
`GET /schemas/ids/N` gives the schema back. Failures are the documented ones: 401, 404 (40403), 409.
"""

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        parts = [unquote(part) for part in self.path.split("/")]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._let_in():
            return
        assert self.headers["Content-Type"] == MEDIA_TYPE
        assert (parts[1], parts[3]) == ("subjects", "versions")
        if parts[2] in self.server.incompatible:
            self._say(409, {"error_code": 409, "message": "Schema being registered is incompatible"})
            return
        schemas = self.server.schemas
        number = next((n for n, text in schemas.items() if text == body["schema"]), 100_000 + len(schemas))
        schemas[number] = body["schema"]
        self.server.subjects[parts[2]] = number
        self._say(200, {"id": number})

    def do_GET(self):
        if not self._let_in():
            return
        number = int(self.path.removeprefix("/schemas/ids/"))
        if number in self.server.schemas:
            self._say(200, {"schema": self.server.schemas[number]})
        else:
            self._say(404, {"error_code": 40403, "message": "Schema not found"})

    def _let_in(self):
        self.server.asked.append((self.command, self.path))
        wanted = "Basic " + base64.b64encode(self.server.login.encode()).decode()
        if self.server.login and self.headers["Authorization"] != wanted:
            self._say(401, {"error_code": 401, "message": "Unauthorized"})
            return False
        return True

    def _say(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", MEDIA_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def fake_registry(tls=None):
    """Lend a running registry: `url`, `subjects`, `schemas`, what it was `asked`, and the `login` that it wants."""
    server = HTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    server.schemas, server.subjects, server.asked, server.incompatible, server.login = {}, {}, [], set(), ""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
