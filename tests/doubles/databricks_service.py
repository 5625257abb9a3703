"""A double of Databricks' Statement Execution API: DuckDB runs the statements, this says what Databricks says over the wire.

    python databricks_service.py PORT

The statements themselves are databricks_engine.py's. States of statements, chunks behind links that expire, tokens, the
history of queries, and troubles that a test asks for are here.

Everything is told apart by workspace, of which each test has its own: `POST /double/workspaces/NAME` makes one or changes how
it is served. What it proves is how a client behaves towards this reading of the interface, not how Databricks does.
"""

import base64
import json
import re
import sys
import threading
import time
import uuid
from collections import Counter
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import duckdb
import pyarrow as pa
from databricks_engine import Database, Failed, block, carried, one, quoted

UNDONE = Failed("DELTA_CONCURRENT_APPEND", "Transaction conflict detected. A concurrent WRITE added data.", "2D521")
WRITTEN = re.compile(r"\b(?:insert into|update(?!\s+set\b)|delete from|merge into)\s+([`\w.-]+)", re.IGNORECASE)

workspaces = {}
statements = {}
links = {}


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status, code, message, headers=()):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Workspace(Database):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.token = "dapi-" + name
        self.client_id = self.client_secret = None
        self.expires_in = 3600
        self.tokens = {}  # those that the token server gave: until when each holds
        self.granted = 0
        self.warehouse = "wh-" + name
        self.starts = 0.0  # seconds for which the warehouse is still asleep
        self.slow = 0.0  # seconds that each statement takes longer
        self.chunk_rows = 10_000
        self.link_seconds = 900.0
        self.conflicts = 0  # writes that another one undoes
        self.versions = Counter()  # of tables, counted by the blocks that wrote them
        self.slow_at, self.slow_for = None, 0.0  # statements that hold this take so many seconds longer
        self.forgets_at = None  # statements that hold this end well, and what they did is forgotten at once
        self.denies_at = None  # the next statement that holds this is told to have been undone, and was not
        self.chunks_kept = None  # so many chunks of a result are read before it is forgotten
        self.troubles = []  # each: at, times, status, code, message, retry_after, cut
        self.log = []
        self.requests = []
        self.lock = threading.RLock()
        self.writing = threading.Lock()


# ---- statements ----


class Statement:
    def __init__(self, workspace, request):
        self.workspace, self.request = workspace, request
        self.id = str(uuid.uuid4())
        self.state, self.error, self.result = "PENDING", None, None
        self.read = 0
        self.cancelled = threading.Event()
        self.over = threading.Event()
        self.cursor = workspace.database.cursor()
        workspace.log.append(self)
        statements[self.id] = self
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        workspace = self.workspace
        while workspace.starts > 0 and not self.cancelled.wait(0.02):
            workspace.starts -= 0.02
        if not self.cancelled.is_set():
            self.state = "RUNNING"
            self.began = workspace.versions.copy()
            slow_at = workspace.slow_at and re.search(workspace.slow_at, self.request["statement"])
            self.cancelled.wait(workspace.slow + (workspace.slow_for if slow_at else 0.0))
        try:
            if self.cancelled.is_set():
                raise duckdb.InterruptException("before it began")
            self.result = self.executed()
            if workspace.denies_at and re.search(workspace.denies_at, self.request["statement"]):
                workspace.denies_at = None
                raise UNDONE
            forgets = workspace.forgets_at and re.search(workspace.forgets_at, self.request["statement"])
            self.state = "CLOSED" if forgets else "SUCCEEDED"
        except Failed as failed:
            self.error, self.state = failed, "FAILED"
        except duckdb.InterruptException:
            self.state = "CANCELED"
        except Exception as fault:
            print(f"{self.request['statement']}\n  {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
            self.error, self.state = Failed("INTERNAL_ERROR", f"{type(fault).__name__}: {fault}", "XX000", "INTERNAL_ERROR"), "FAILED"
        self.over.set()

    def executed(self):
        text, workspace = self.request["statement"], self.workspace
        catalog = self.request.get("catalog") or workspace.catalog
        if catalog != workspace.catalog:
            raise Failed("NO_SUCH_CATALOG_EXCEPTION", f"Catalog '{catalog}' was not found.", "42704")
        schema = self.request.get("schema") or "default"
        try:
            self.cursor.execute(f"use {quoted(catalog)}.{quoted(schema)}")
        except duckdb.InterruptException:
            raise
        except duckdb.Error:
            raise Failed("SCHEMA_NOT_FOUND", f"The schema `{catalog}`.`{schema}` cannot be found.", "42704") from None
        plain = re.sub(r"^\s*/\*.*?\*/\s*", "", text, flags=re.S)
        if workspace.conflicts > 0 and re.match(r"begin|insert|update|delete|merge", plain, re.I):
            workspace.conflicts -= 1
            raise UNDONE
        if plain.lower().startswith("begin"):
            # Nobody waits for another one's end: whoever ends first has undone the other.
            tables = set(WRITTEN.findall(plain))
            with workspace.writing:
                if any(workspace.versions[table] != self.began[table] for table in tables):
                    raise UNDONE
                table, written = block(workspace, self.cursor, text)
                workspace.versions.update(tables)
        else:
            table, written = one(workspace, self.cursor, plain, False, self.request.get("parameters"))
        if table is None and written is not None:
            table = carried(pa.table({"num_affected_rows": pa.array([written], pa.int64())}), ["bigint"])
        return table

    def stop(self):
        if not self.cancelled.is_set():
            self.cancelled.set()
            threading.Thread(target=self.interrupt, daemon=True).start()

    def interrupt(self):
        """Again and again: DuckDB forgets an interrupt that comes before it has begun."""
        while not self.over.wait(0.02):
            self.cursor.interrupt()

    def answer(self, inline):
        status = {"state": self.state}
        if self.error:
            status["error"] = {"error_code": self.error.code, "message": self.error.message}
            status["sql_state"] = self.error.sql_state
        answer = {"statement_id": self.id, "status": status}
        if self.state != "SUCCEEDED":
            return answer
        table = self.result if self.result is not None else pa.table({})
        kinds = json.loads((table.schema.metadata or {}).get(b"kinds", b"null")) or ["string"] * len(table.schema.names)
        columns = [{"name": n, "position": i, "type_text": k.upper(), "type_name": re.match(r"\w+", k).group(0).upper()} for i, (n, k) in enumerate(zip(table.schema.names, kinds))]
        parts = self.parts()
        manifest = {"format": "JSON_ARRAY" if inline else "ARROW_STREAM", "schema": {"column_count": len(columns), "columns": columns},
                    "total_row_count": table.num_rows, "total_chunk_count": len(parts), "truncated": False,
                    "chunks": [{"chunk_index": i, "row_offset": o, "row_count": n} for i, (o, n) in enumerate(parts)]}
        answer["manifest"] = manifest
        if inline:
            rows = [[None if v is None else str(v) for v in row.values()] for row in table.to_pylist()] if table.schema.names else []
            answer["result"] = {"chunk_index": 0, "row_offset": 0, "row_count": len(rows), "data_array": rows}
        else:
            answer["result"] = self.link(0) if parts else {}
        return answer

    def parts(self):
        rows, size = (self.result.num_rows if self.result is not None else 0), self.workspace.chunk_rows
        return [(o, min(size, rows - o)) for o in range(0, rows, size)]

    def link(self, index):
        if self.state == "CLOSED":
            raise Refused(404, "NOT_FOUND", f"The result of the statement {self.id} is no longer available.")
        parts = self.parts()
        if index >= len(parts):
            raise Refused(400, "INVALID_PARAMETER_VALUE", f"there is no chunk {index}")
        offset, count = parts[index]
        key = uuid.uuid4().hex
        until = time.time() + self.workspace.link_seconds
        links[key] = (self, index, until)
        link = {"chunk_index": index, "row_offset": offset, "row_count": count, "external_link": f"http://127.0.0.1:{PORT}/links/{key}?sig={uuid.uuid4().hex}",
                "expiration": (datetime.now(timezone.utc) + timedelta(seconds=self.workspace.link_seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        if index + 1 < len(parts):
            link["next_chunk_index"] = index + 1
            link["next_chunk_internal_link"] = f"/api/2.0/sql/statements/{self.id}/result/chunks/{index + 1}?row_offset={offset + count}"
        return {"external_links": [link]}

    def chunk(self, index):
        offset, count = self.parts()[index]
        sink = pa.BufferOutputStream()
        part = self.result.slice(offset, count).replace_schema_metadata(None)
        with pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part, max_chunksize=4_096)
        return sink.getvalue().to_pybytes()


# ---- the wire ----


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def serve(self):
        length = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(length)
        try:
            answer = self.routed()
        except Refused as no:
            self.reply(no.status, {"error_code": no.code, "message": no.message}, no.headers)
            return
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()
            return
        except Exception as fault:
            print(f"{self.path}: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
            self.reply(500, {"error_code": "INTERNAL_ERROR", "message": f"{type(fault).__name__}: {fault}"})
            return
        self.reply(200, answer)

    do_GET = do_POST = serve

    def routed(self):
        url = urlsplit(self.path)
        path, query = url.path, parse_qs(url.query)
        if path.startswith("/double/workspaces/"):
            return changed(path.rsplit("/", 1)[1], json.loads(self.body or b"{}"))
        if path.startswith("/links/"):
            return self.linked(path.rsplit("/", 1)[1])
        if path == "/oidc/v1/token":
            return self.token()
        workspace = self.known()
        workspace.requests.append(f"{self.command} {path}")
        self.trouble(workspace, path)
        if path == "/api/2.0/sql/history/queries":
            states = set(query.get("filter_by.statuses", []))
            words = {"PENDING": "QUEUED", "SUCCEEDED": "FINISHED"}
            found = [{"query_id": s.id, "status": words.get(s.state, s.state), "query_text": s.request["statement"], "warehouse_id": workspace.warehouse}
                     for s in reversed(workspace.log) if not states or words.get(s.state, s.state) in states]
            return {"res": found, "has_next_page": False}
        if path == "/api/2.0/sql/statements" and self.command == "POST":
            return self.begun(workspace)
        parts = path.removeprefix("/api/2.0/sql/statements/").split("/")
        statement = statements.get(parts[0])
        if statement is None or statement.workspace is not workspace:
            raise Refused(404, "NOT_FOUND", f"The statement {parts[0]} was not found.")
        if parts[1:] == ["cancel"]:
            statement.stop()
            return {}
        if parts[1:3] == ["result", "chunks"]:
            return statement.link(int(parts[3]))
        return statement.answer(statement.request.get("disposition", "INLINE") == "INLINE")

    def begun(self, workspace):
        request = json.loads(self.body)
        known = {"statement", "warehouse_id", "catalog", "schema", "parameters", "row_limit", "byte_limit", "disposition", "format", "wait_timeout", "on_wait_timeout", "query_tags"}
        if set(request) - known:
            raise Refused(400, "MALFORMED_REQUEST", f"unknown fields: {sorted(set(request) - known)}")
        if request.get("warehouse_id") != workspace.warehouse:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"SQL warehouse {request.get('warehouse_id')} does not exist")
        if (request.get("disposition", "INLINE"), request.get("format", "JSON_ARRAY")) not in (("INLINE", "JSON_ARRAY"), ("EXTERNAL_LINKS", "ARROW_STREAM")):
            raise Refused(400, "INVALID_PARAMETER_VALUE", "this disposition has no such format")
        statement = Statement(workspace, request)
        wait = float(request.get("wait_timeout", "10s").rstrip("s"))
        if wait and not 5 <= wait <= 50:
            raise Refused(400, "INVALID_PARAMETER_VALUE", "wait_timeout must be 0s or between 5s and 50s")
        statement.over.wait(wait)
        return statement.answer(request.get("disposition", "INLINE") == "INLINE")

    def known(self):
        given = self.headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        for workspace in list(workspaces.values()):
            if scheme == "Bearer" and token and token == workspace.token:
                return workspace
            if scheme == "Bearer" and token in workspace.tokens:
                if workspace.tokens[token] < time.time():
                    raise Refused(401, "UNAUTHENTICATED", "Access token has expired.")
                return workspace
        if not given:
            raise Refused(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")
        raise Refused(403, "403", "Invalid access token.")

    def token(self):
        scheme, _, given = self.headers.get("authorization", "").partition(" ")
        client, _, secret = base64.b64decode(given).decode().partition(":") if scheme == "Basic" else ("", "", "")
        form = parse_qs(self.body.decode())
        if form.get("grant_type") != ["client_credentials"] or form.get("scope") != ["all-apis"]:
            raise Refused(400, "invalid_request", "grant_type and scope are needed")
        for workspace in list(workspaces.values()):
            if client and client == workspace.client_id and secret == workspace.client_secret:
                self.trouble(workspace, "/oidc/v1/token")
                workspace.granted += 1
                token = f"eyJ-{workspace.name}-{uuid.uuid4().hex}"
                workspace.tokens[token] = time.time() + workspace.expires_in
                return {"access_token": token, "token_type": "Bearer", "expires_in": workspace.expires_in, "scope": "all-apis"}
        raise Refused(401, "invalid_client", "Client authentication failed")

    def linked(self, key):
        if key not in links:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        statement, index, until = links[key]
        statement.workspace.requests.append("GET /links")
        if self.headers.get("authorization"):
            raise Refused(400, "InvalidArgument", "Only one auth mechanism allowed")
        self.trouble(statement.workspace, "/links")
        if until < time.time() or statement.state == "CLOSED":
            raise Refused(403, "AccessDenied", "Request has expired")
        statement.read += 1
        if statement.read == statement.workspace.chunks_kept:
            statement.state = "CLOSED"
        return statement.chunk(index)

    def trouble(self, workspace, path):
        with workspace.lock:
            trouble = next((t for t in workspace.troubles if re.search(t["at"], f"{self.command} {path}") and t.get("times", 1) > 0), None)
            if trouble is None:
                return
            trouble["times"] = trouble.get("times", 1) - 1
        if trouble.get("cut") == "after" and self.command == "POST" and path.endswith("/statements"):
            self.begun(workspace)
        if trouble.get("cut"):
            raise ConnectionAbortedError
        headers = [("retry-after", str(trouble["retry_after"]))] if "retry_after" in trouble else []
        raise Refused(trouble["status"], trouble.get("code", "ERROR"), trouble.get("message", "trouble"), headers)


def changed(name, settings):
    workspace = workspaces.get(name) or Workspace(name)
    workspaces[name] = workspace
    texts = []
    for key, value in settings.items():
        if key == "kill":
            for statement in workspace.log:
                statement.stop()
        elif key == "expire_tokens":
            workspace.tokens = {token: 0.0 for token in workspace.tokens}
        elif key == "sql":
            try:
                cursor = workspace.database.cursor()
                cursor.execute(f'use {quoted(workspace.catalog)}."default"')
                found, _ = one(workspace, cursor, value)
            except Failed as failed:
                raise Refused(400, failed.code, failed.message) from None
            texts = [None if v is None else str(v) for v in found.columns[0].to_pylist()] if found is not None and found.schema.names else []
        elif hasattr(workspace, key):
            setattr(workspace, key, value)
        else:
            raise Refused(400, "INVALID", f"workspaces have no {key}")
    return {"texts": texts, "token": workspace.token, "warehouse": workspace.warehouse, "catalog": workspace.catalog, "granted": workspace.granted, "requests": workspace.requests,
            "statements": [{"id": s.id, "sql": s.request["statement"], "state": s.state, "tags": s.request.get("query_tags"), "parameters": s.request.get("parameters")} for s in workspace.log]}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    PORT = int(sys.argv[1])
    Server(("127.0.0.1", PORT), Handler).serve_forever()
