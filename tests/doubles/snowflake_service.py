"""A double of Snowflake's service: fakesnow runs the statements, this says what the service says over the wire.

    python snowflake_service.py PORT

fakesnow turns Snowflake's SQL into DuckDB's. What its own server lacks is here: logins that are checked (the
signature and claims of a key pair's token among them), sessions that expire and are renewed, answers that come
later (333333, 333334), results in remote chunks with Snowflake's own forms of Arrow, requests that are known by their
id and never run twice, statements that are aborted, and troubles that a test asks for.

Everything is told apart by user, so that tests can share one process. `POST /double/users/NAME` makes a user or
changes how it is served; `GET /double/users/NAME` tells what it has run. What it proves is how a client behaves
towards this reading of the protocol, not how Snowflake does.
"""

import base64
import decimal
import gzip
import hashlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import duckdb
import fakesnow.info_schema
import fakesnow.transforms
import jwt
import pyarrow as pa
import snowflake.connector.errors
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fakesnow.arrow import to_sf
from fakesnow.converter import from_binding
from fakesnow.dialect import parse_one
from fakesnow.instance import FakeSnow
from fakesnow.rowtype import describe_as_rowtype, duckdb_to_sf_type
from fakesnow.statement_type import DDL, DML_TYPE_IDS, SELECT, statement_type_id
from sqlglot import exp

# A thread begins with this one's precision, which is less than Snowflake's numbers have.
decimal.DefaultContext.prec = 80

# Types that DuckDB gives an expression and fakesnow has no name for.
duckdb_to_sf_type.update({"TINYINT": "fixed", "SMALLINT": "fixed", "UINTEGER": "fixed", "FLOAT": "real", "TIMESTAMP_S": "timestamp_ntz"})

# Its list of tables leaves views out, and the lengths of texts that it writes down about every table are not escaped.
per_database = fakesnow.info_schema.per_db_creation_sql
TABLES_AND_VIEWS = """(
    select database_name, schema_name, table_name, estimated_size, 'BASE TABLE' as kind from duckdb_tables
    union all
    select database_name, schema_name, view_name, 0, 'VIEW' from duckdb_views where not internal
) tables"""
fakesnow.info_schema.per_db_creation_sql = lambda catalog: (
    per_database(catalog).replace("'BASE TABLE' AS \"TABLE_TYPE\"", "tables.kind AS \"TABLE_TYPE\"").replace("from duckdb_tables tables", f"from {TABLES_AND_VIEWS}"))
fakesnow.transforms.extract_text_length = lambda tree: tree

engine = FakeSnow()
lock = threading.RLock()
users = {}
sessions = {}
chunks = {}
written = {}  # a table's whole name: the lock of whoever writes it


class Refused(Exception):
    """An answer that says no, as Snowflake words it."""

    def __init__(self, code, message, sql_state="", status=200):
        super().__init__(message)
        self.code, self.message, self.sql_state, self.status = code, message, sql_state, status


def canceled():
    return Refused("000604", "SQL execution canceled", "57014")


class User:
    def __init__(self, name):
        self.name = name
        self.account = "TESTS"
        self.password = None
        self.token = None
        self.oauth = None
        self.public_key = None
        self.roles = None
        self.warehouses = None
        self.clock_ahead = 0  # seconds by which this service's clock is ahead
        self.patience = 45.0  # seconds until an answer comes later
        self.later_code = "333333"
        self.inline_rows = 1000
        self.chunk_rows = 20000
        self.compress = True
        self.chunk_headers = {}
        self.json_results = False
        self.loses = 0  # rows that are counted and do not come
        self.troubles = []  # each: at, times, status | cut | code, message, sql_state
        self.logins = []
        self.statements = []
        self.requests = {}  # how often each path was asked


class Session:
    def __init__(self, user, number, login):
        self.user, self.number = user, number
        self.token, self.master = uuid.uuid4().hex, uuid.uuid4().hex
        self.token_expired = self.master_expired = self.ended = False
        self.parameters = login
        self.connection = None
        self.busy = threading.Lock()
        self.jobs = {}
        self.in_transaction = False
        self.begun = False
        self.held = []

    def release(self):
        for held in self.held:
            held.release()
        self.held = []
        self.in_transaction = self.begun = False

    def end(self):
        """The session is over: what runs is stopped, and what is not committed is undone."""
        self.ended = True
        for job in list(self.jobs.values()):
            job.abort()
        with self.busy:
            if self.connection and self.begun:
                self.connection._duck_conn.execute("rollback")
            self.release()
            sessions.pop(self.token, None)


class Job:
    """A statement under way or done, known by its request's id."""

    def __init__(self, session, request):
        self.session, self.request = session, request
        self.id = str(uuid.uuid4())
        self.done = threading.Event()
        self.aborted = False
        self.running = False
        self.ending = threading.Lock()
        self.answer = None
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        record = {"id": self.id, "sql": self.request["sqlText"], "tag": self.session.parameters.get("QUERY_TAG"),
                  "session": self.session.number, "state": "running", "describe": bool(self.request.get("describeOnly"))}
        self.session.user.statements.append(record)
        with self.session.busy:
            try:
                self.running = True
                if self.aborted:
                    raise canceled()
                self.answer = {"success": True, "code": None, "message": None, "data": execute(self)}
                record["state"] = "done"
            except Refused as no:
                record["state"] = "aborted" if no.code == "000604" else "failed"
                self.answer = refusal(no, self.id)
            except Exception as fault:
                if self.aborted:
                    record["state"], self.answer = "aborted", refusal(canceled(), self.id)
                    return
                record["state"] = "failed"
                print(f"{self.request['sqlText']}\n{type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
                self.answer = refusal(Refused("000603", f"SQL execution internal error: {type(fault).__name__}: {fault}", "XX000"), self.id)
            finally:
                with self.ending:
                    self.running = False
                self.done.set()

    def abort(self):
        self.aborted = True
        threading.Thread(target=self.interrupt, daemon=True).start()

    def interrupt(self):
        """Again and again: DuckDB forgets an interrupt that comes before it has begun."""
        while not self.done.wait(0.02):
            with self.ending:
                if self.running and self.session.connection:
                    self.session.connection._duck_conn.interrupt()


def refusal(no, query=None):
    data = {"queryId": query, "sqlState": no.sql_state, "errorCode": no.code} if query else {}
    return {"success": False, "code": no.code, "message": no.message, "data": data}


# ---- logging in ----


def key_pair(wanted):
    """A key pair as `openssl genrsa 2048 | openssl pkcs8 -topk8` makes it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    if wanted:
        with tempfile.NamedTemporaryFile("w") as plain:
            plain.write(private)
            plain.flush()
            command = ["openssl", "pkcs8", "-topk8", "-v2", wanted["cipher"], "-in", plain.name, "-passout", "pass:" + wanted["passphrase"]]
            private = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return {"private": private, "public": public}


def account_of(text):
    return text.split(".")[0].upper()


def check_key_pair(user, account, token):
    wrong = Refused("390144", "JWT token is invalid. [00000000-0000-0000-0000-000000000000]")
    if not user.public_key:
        raise wrong
    key = serialization.load_pem_public_key(user.public_key.encode())
    try:
        claims = jwt.decode(token, key, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False, "require": ["iss", "sub", "iat", "exp"]})
    except jwt.PyJWTError:
        raise wrong from None
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()
    subject = f"{account}.{user.name}"
    if claims["sub"] != subject or claims["iss"] != f"{subject}.{fingerprint}":
        raise wrong
    now = time.time() + user.clock_ahead
    if claims["exp"] - claims["iat"] > 3600:
        raise Refused("394303", "JWT token has an invalid expiration time.")
    if claims["iat"] > now + 60:
        raise Refused("394302", "JWT token is not yet valid.")
    if claims["exp"] < now:
        raise Refused("394301", "JWT token has expired.")


def log_in(parameters, data):
    name = data.get("LOGIN_NAME", "").upper()
    user = users.get(name)
    account = account_of(data.get("ACCOUNT_NAME", ""))
    if not user or account != account_of(user.account):
        if not any(account == account_of(known.account) for known in users.values()):
            raise Refused("403", "no such account", status=403)
        raise Refused("390100", "Incorrect username or password was specified.")
    trouble(user, "login")
    how = data.get("AUTHENTICATOR", "SNOWFLAKE")
    user.logins.append({"how": how, "application": data.get("CLIENT_ENVIRONMENT", {}).get("APPLICATION"), "parameters": data.get("SESSION_PARAMETERS", {}), **parameters})
    if how == "SNOWFLAKE_JWT":
        check_key_pair(user, account, data.get("TOKEN", ""))
    elif how == "PROGRAMMATIC_ACCESS_TOKEN":
        if not user.token or data.get("TOKEN") != user.token:
            raise Refused("394400", "Programmatic access token is invalid.")
    elif how == "OAUTH":
        if not user.oauth or data.get("TOKEN") != user.oauth:
            raise Refused("390303", "Invalid OAuth access token. [00000000-0000-0000-0000-000000000000]")
    elif how == "SNOWFLAKE":
        if not user.password or data.get("PASSWORD") != user.password:
            raise Refused("390100", "Incorrect username or password was specified.")
    else:
        raise Refused("390190", f"authenticator {how} is not known")
    role = parameters.get("roleName")
    if role and user.roles is not None and role.upper() not in user.roles:
        raise Refused("390189", f"Role '{role}' specified in the connect string does not exist or not authorized. Contact your local system administrator, or attempt to login with another role, e.g. PUBLIC.")
    with lock:
        session = Session(user, str(1_000_000_000 + len(sessions) + int(time.time() * 1000)), dict(data.get("SESSION_PARAMETERS", {})))
        sessions[session.token] = session
        # A database that was asked for and is not there is no error: the session then has none.
        wanted = parameters.get("databaseName")
        schema = parameters.get("schemaName")
        connection = engine.connect(None, None)
        if wanted and databases(connection, wanted):
            connection = engine.connect(wanted, schema or "PUBLIC")
        session.connection = connection
    warehouse = parameters.get("warehouse")
    session.parameters["warehouse"] = warehouse if warehouse and (user.warehouses is None or warehouse.upper() in user.warehouses) else None
    return {
        "token": session.token, "masterToken": session.master, "validityInSeconds": 3600, "masterValidityInSeconds": 14400,
        "sessionId": int(session.number), "displayUserName": user.name, "serverVersion": "9.99.0", "parameters": [],
        "sessionInfo": {"databaseName": session.connection.database, "schemaName": session.connection.schema,
                        "warehouseName": session.parameters["warehouse"], "roleName": role or "PUBLIC"},
    }


def databases(connection, name):
    return connection._duck_conn.execute("select 1 from information_schema.schemata where upper(catalog_name) = ?", [name.upper()]).fetchone()


# ---- statements ----

ABORT_SESSION = re.compile(r"(?is)^\s*select\s+system\$abort_session\s*\(\s*'?(\d+)'?\s*\)")
SET_PARAMETER = re.compile(r"(?is)^\s*alter\s+session\s+set\s+(\w+)\s*=\s*'?(.*?)'?\s*$")
SLEEP = re.compile(r"(?is)^\s*(?:select|call)\s+system\$wait\s*\(\s*(\d+)\s*\)")


def execute(job):
    session, request = job.session, job.request
    text = request["sqlText"]
    trouble(session.user, "statement")
    if found := SET_PARAMETER.match(text):
        session.parameters[found[1].upper()] = found[2]
        return said(job, "Statement executed successfully.")
    if found := ABORT_SESSION.match(text):
        for other in [s for s in list(sessions.values()) if s.number == found[1] and s is not session]:
            other.end()
            return said(job, "session aborted.")
        raise Refused("000707", f"Session {found[1]} does not exist or has been terminated.", "02000")
    if found := SLEEP.match(text):
        until = time.monotonic() + int(found[1])
        while time.monotonic() < until and not job.aborted:
            time.sleep(0.005)
        if job.aborted:
            raise canceled()
        return said(job, f"waited {found[1]} seconds")
    try:
        tree = parse_one(text)
    except snowflake.connector.errors.ProgrammingError as no:
        raise Refused(f"{no.errno:06d}", f"SQL compilation error:\n{no.msg}", no.sqlstate) from None
    kind = statement_type_id(tree)
    if (kind == SELECT or kind in DML_TYPE_IDS or kind == DDL) and not session.parameters["warehouse"] and not request.get("describeOnly") and kind != DDL:
        raise Refused("000606", "No active warehouse selected in the current session.  Select an active warehouse with the 'use warehouse' command.\n", "57P03")
    connection = session.connection
    duck = connection._duck_conn
    if request.get("describeOnly"):
        cursor = connection.cursor()
        return described(job, guarded(lambda: cursor._describe_only(text)))
    if isinstance(tree, exp.Use):
        guarded(lambda: connection.cursor().execute(text, server=True))
        return said(job, "Statement executed successfully.")
    if isinstance(tree, exp.Transaction):
        session.in_transaction = True
        return said(job, "Statement executed successfully.")
    if isinstance(tree, (exp.Commit, exp.Rollback)):
        if session.begun:
            duck.execute("commit" if isinstance(tree, exp.Commit) else "rollback")
        session.release()
        return said(job, "Statement executed successfully.")
    if kind == DDL and session.in_transaction:
        # A change of the schema commits what was open.
        if session.begun:
            duck.execute("commit")
        session.release()
    if session.in_transaction and kind in DML_TYPE_IDS:
        hold(job, tree)
    if session.in_transaction and not session.begun:
        # Not at `begin`: DuckDB reads as of a transaction's beginning, Snowflake as of each statement's. Whoever
        # writes holds the table by now.
        duck.execute("begin transaction")
        session.begun = True
    alone = kind in DML_TYPE_IDS and not session.in_transaction
    try:
        if alone:
            hold(job, tree)
        return run(job, tree, kind)
    finally:
        if alone:
            session.release()


def hold(job, tree):
    """Waits for whoever else writes the table: Snowflake makes writers wait, DuckDB would refuse the second."""
    connection = job.session.connection
    table = tree.find(exp.Table)
    name = (table.catalog or connection.database, table.db or connection.schema, table.name)
    with lock:
        held = written.setdefault(name, threading.Lock())
    if held in job.session.held:
        return
    while not held.acquire(timeout=0.01):
        if job.aborted:
            raise canceled()
    job.session.held.append(held)


def run(job, tree, kind):
    session, request = job.session, job.request
    cursor = session.connection.cursor()
    affected = None
    bindings = request.get("bindings")
    if bindings:
        columns = [bindings[str(i)] for i in range(1, len(bindings) + 1)]
        many = isinstance(columns[0]["value"], list)
        values = [[None if v is None else from_binding({**c, "value": v}) for v in (c["value"] if many else [c["value"]])] for c in columns]
        affected = 0
        for row in zip(*values):
            guarded(lambda: cursor.execute(request["sqlText"], binding_params=row, server=True))
            affected += cursor.rowcount or 0
    else:
        guarded(lambda: cursor.execute(request["sqlText"], server=True))
    if job.aborted:
        raise canceled()
    rowtype = describe_as_rowtype(cursor._describe_last_sql())
    table = cursor._arrow_table
    data = {"queryId": job.id, "statementTypeId": kind, "rowtype": rowtype, "parameters": [], "queryResultFormat": "json",
            "total": table.num_rows, "returned": table.num_rows, "finalDatabaseName": session.connection.database, "finalSchemaName": session.connection.schema}
    if kind == SELECT and not session.user.json_results:
        return arrow_result(session.user, data, to_sf(table, rowtype))
    rows = [[None if v is None else text_of(v, c["type"]) for v, c in zip(row, rowtype)] for row in zip(*[c.to_pylist() for c in to_sf(table, rowtype).columns])]
    if affected is not None:
        rows = [[str(affected)]]
    return json_result(session.user, data, rows)


def described(job, columns):
    return {"queryId": job.id, "rowtype": describe_as_rowtype(columns or []), "total": 0, "returned": 0, "queryResultFormat": "arrow", "rowsetBase64": "", "parameters": []}


def said(job, status):
    rowtype = [{"name": "status", "type": "text", "nullable": True, "length": 16777216, "byteLength": 16777216, "scale": None, "precision": None}]
    return {"queryId": job.id, "rowtype": rowtype, "rowset": [[status]], "total": 1, "returned": 1, "queryResultFormat": "json", "parameters": [], "statementTypeId": 0}


def guarded(work):
    """Runs it, and words DuckDB's troubles as Snowflake does."""
    try:
        return work()
    except snowflake.connector.errors.Error as no:
        message, code = no.msg or "", no.errno
        if code == 2003 and "already exists" in message:
            code, no.sqlstate = 2002, "42710"
        elif code == 2043:
            code = 904 if "column" in message.lower() else 1003
        raise Refused(f"{code:06d}", no.raw_msg or message, no.sqlstate or "") from None
    except duckdb.InterruptException:
        raise canceled() from None
    except duckdb.ConstraintException as no:
        raise Refused("100072", str(no), "22000") from None
    except (duckdb.OutOfRangeException, duckdb.InvalidInputException) as no:
        raise Refused("100132", str(no), "22003") from None


# ---- results ----


def scaled(column, field):
    """Whole numbers and decimals as Snowflake sends them: the number without its point, as narrow as this chunk's values allow."""
    kind = field.type
    if pa.types.is_decimal(kind):
        scale = kind.scale
        values = [None if v is None else int(v.scaleb(scale)) for v in column.to_pylist()]
    elif pa.types.is_integer(kind):
        for narrow in (pa.int8(), pa.int16(), pa.int32()):
            try:
                return column.cast(narrow), field.with_type(narrow)
            except pa.ArrowInvalid:
                continue
        return column, field
    else:
        return column, field
    largest = max((abs(v) for v in values if v is not None), default=0)
    for bits, narrow in [(8, pa.int8()), (16, pa.int16()), (32, pa.int32()), (64, pa.int64())]:
        if largest < 1 << (bits - 1):
            return pa.array(values, narrow), field.with_type(narrow)
    wide = pa.decimal128(38, scale)
    return pa.array([None if v is None else decimal.Decimal(v).scaleb(-scale) for v in values], wide), field.with_type(wide)


def masked(column):
    """A null timestamp is a null struct, not one of nulls."""
    if not pa.types.is_struct(column.type) or not len(column):
        return column
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    parts = column.flatten()
    names = [column.type.field(i) for i in range(column.type.num_fields)]
    return pa.StructArray.from_arrays(parts, fields=names, mask=parts[0].is_null())


def ipc(table):
    columns, fields = [], []
    for column, field in zip(table.combine_chunks().columns, table.schema):
        array, field = scaled(masked(column), field)
        columns.append(array)
        fields.append(field)
    part = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.schema) as writer:
        for batch in part.to_batches(max_chunksize=10000) or [pa.RecordBatch.from_pylist([], schema=part.schema)]:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def remote(user, body, rows):
    name = uuid.uuid4().hex
    chunks[name] = (user, gzip.compress(body, 1) if user.compress else body)
    return {"url": f"http://127.0.0.1:{PORT}/double/chunks/{name}?signature=s3cr3t", "rowCount": rows, "uncompressedSize": len(body), "compressedSize": len(chunks[name][1])}


def parts(user, count):
    start = min(user.inline_rows, count)
    return start, [(at, min(user.chunk_rows, count - at)) for at in range(start, count, user.chunk_rows)]


def arrow_result(user, data, table):
    first, rest = parts(user, table.num_rows)
    data["queryResultFormat"] = "arrow"
    data["rowsetBase64"] = base64.b64encode(ipc(table.slice(0, first))).decode() if first else ""
    data["returned"] = first
    return with_chunks(user, data, [remote(user, ipc(table.slice(at, length)), length) for at, length in rest])


def json_result(user, data, rows):
    first, rest = parts(user, len(rows))
    data["rowset"], data["returned"] = rows[:first], first
    return with_chunks(user, data, [remote(user, json.dumps(rows[at:at + length])[1:-1].encode(), length) for at, length in rest])


def with_chunks(user, data, made):
    data["total"] += user.loses
    if made:
        data["chunks"] = made
        if user.chunk_headers:
            data["chunkHeaders"] = user.chunk_headers
        else:
            data["qrmk"] = "a-key-for-chunks"
    return data


def text_of(value, kind):
    if isinstance(value, dict):
        zone = f" {value['timezone']}" if "timezone" in value else ""
        whole = value["epoch"] * 1_000_000_000 + value["fraction"]
        return f"{'-' if whole < 0 else ''}{abs(whole) // 1_000_000_000}.{abs(whole) % 1_000_000_000:09d}{zone}"
    if kind == "boolean":
        return "1" if value else "0"
    if kind == "time":
        return f"{value // 1_000_000_000}.{value % 1_000_000_000:09d}"
    if isinstance(value, date):
        return str((value - date(1970, 1, 1)).days)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    return str(value)


# ---- the wire ----


class Cut(Exception):
    pass


def trouble(user, at):
    """What a test asked to go wrong here, as often as it asked for it."""
    with lock:
        asked = next((t for t in user.troubles if t["at"] == at and t.get("times", 1) > 0), None)
        if not asked:
            return None
        asked["times"] = asked.get("times", 1) - 1
        if asked.get("skip", 0) > 0:
            asked["skip"] -= 1
            asked["times"] += 1
            return None
    if asked.get("code"):
        raise Refused(asked["code"], asked.get("message", "trouble"), asked.get("sql_state", ""))
    return asked


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + getattr(self, "clock_ahead", 0))

    def serve(self):
        self.clock_ahead = 0
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        address = urlsplit(self.path)
        parameters = {name: values[0] for name, values in parse_qs(address.query).items()}
        try:
            form = self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
            self.answer(*self.route(address.path, parameters, parse_qs(body.decode()) if form else json.loads(body) if body else {}))
        except Refused as no:
            self.answer(no.status, json.dumps(refusal(no)).encode(), {})
        except Cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def met(self, user, at):
        """Troubles of the connection: an answer of another status, or none."""
        user.requests[at] = user.requests.get(at, 0) + 1
        asked = trouble(user, at)
        if asked and asked.get("cut"):
            if asked["cut"] == "before":
                raise Cut
            return asked
        if asked:
            headers = {"retry-after": asked["retry_after"]} if "retry_after" in asked else {}
            return (asked["status"], asked.get("body", "").encode(), headers)
        return None

    def route(self, path, parameters, body):
        if path.startswith("/double/users/"):
            return self.double(path.rsplit("/", 1)[1].upper(), body)
        if path == "/double/keys":
            return 200, json.dumps(key_pair(body)).encode(), {}
        if path == "/double/oauth/token":
            return self.oauth_token(body)
        if path.startswith("/double/chunks/"):
            return self.chunk(path.rsplit("/", 1)[1])
        if path == "/session/v1/login-request":
            user = users.get(body["data"].get("LOGIN_NAME", "").upper())
            self.clock_ahead = user.clock_ahead if user else 0
            if user and (met := self.met(user, "connect")):
                return met
            return ok(log_in(parameters, body["data"]))
        if path == "/session/token-request":
            return ok(self.renew(body))
        session = self.session()
        if path == "/session":
            session.end()
            return ok(None)
        if path == "/session/heartbeat":
            return ok(None)
        if path == "/queries/v1/abort-request":
            return self.abort(session, body)
        if path == "/queries/v1/query-request":
            return self.query(session, parameters, body)
        if found := re.fullmatch(r"/queries/([\w-]+)/result", path):
            if met := self.met(session.user, "result"):
                return met
            job = next((j for s in list(sessions.values()) if s.user is session.user for j in s.jobs.values() if j.id == found[1]), None)
            if not job:
                raise Refused("000709", f"Statement {found[1]} not found", "02000")
            return self.later(session, job)
        return 404, b"", {}

    def double(self, name, body):
        with lock:
            user = users.setdefault(name, User(name))
        for key, value in body.items():
            if key == "database":
                engine.connect(value, "PUBLIC")
            elif key == "expire":
                for session in list(sessions.values()):
                    if session.user is user:
                        session.token_expired = True
                        session.master_expired |= value == "master"
            else:
                assert hasattr(user, key), key
                setattr(user, key, value)
        told = {"logins": user.logins, "statements": user.statements, "requests": user.requests, "sessions": [s.number for s in list(sessions.values()) if s.user is user and not s.ended]}
        return 200, json.dumps(told).encode(), {}

    def chunk(self, name):
        if name not in chunks:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
        user, content = chunks[name]
        if met := self.met(user, "chunk"):
            if isinstance(met, dict):
                # Half of it, and the connection is gone.
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                raise Cut
            return met
        wanted = user.chunk_headers or {"x-amz-server-side-encryption-customer-key": "a-key-for-chunks", "x-amz-server-side-encryption-customer-algorithm": "AES256"}
        if any(self.headers.get(key) != value for key, value in wanted.items()) or self.headers.get("authorization"):
            return 403, b"<Error><Code>AccessDenied</Code></Error>", {}
        return 200, content, {"content-encoding": "gzip"} if user.compress else {}

    def oauth_token(self, form):
        """A token server beside Snowflake: a client is a user and its password."""
        kind, _, basic = self.headers.get("authorization", "").partition(" ")
        name, _, secret = base64.b64decode(basic).decode().partition(":")
        user = users.get(name.upper())
        if kind != "Basic" or not user or secret != user.password or form.get("grant_type") != ["client_credentials"]:
            return 401, b'{"error":"invalid_client"}', {}
        user.requests["oauth"] = user.requests.get("oauth", 0) + 1
        user.oauth = f"granted-{uuid.uuid4().hex}-{' '.join(form.get('scope', []))}"
        return 200, json.dumps({"access_token": user.oauth, "token_type": "Bearer", "expires_in": 600}).encode(), {}

    def token(self):
        found = re.fullmatch(r'Snowflake Token="(.*)"', self.headers.get("authorization", ""))
        if not found:
            raise Refused("390101", "Authorization header not found in the request data.")
        return found[1]

    def session(self):
        session = sessions.get(self.token())
        if not session or session.ended:
            raise Refused("390111", "Session no longer exists.  New login required to access the service.")
        if session.token_expired:
            raise Refused("390112", "Your session has expired. Please login again.")
        return session

    def renew(self, body):
        master = self.token()
        session = next((s for s in list(sessions.values()) if s.master == master), None)
        if not session:
            raise Refused("390115", "Master token is invalid.")
        self.met(session.user, "renew")
        if session.master_expired:
            raise Refused("390114", "Authentication token has expired.  The user must authenticate again.")
        if body.get("requestType") != "RENEW" or body.get("oldSessionToken") != session.token:
            raise Refused("390400", "the renewal names another token")
        with lock:
            sessions.pop(session.token)
            session.token, session.master, session.token_expired = uuid.uuid4().hex, uuid.uuid4().hex, False
            sessions[session.token] = session
        return {"sessionToken": session.token, "masterToken": session.master, "validityInSecondsST": 3600, "validityInSecondsMT": 14400, "sessionId": int(session.number)}

    def query(self, session, parameters, body):
        met = self.met(session.user, "query")
        if met and not isinstance(met, dict):
            return met
        with lock:
            job = session.jobs.get(parameters["requestId"])
            if not job:
                job = session.jobs[parameters["requestId"]] = Job(session, body)
        if isinstance(met, dict):
            job.done.wait()
            raise Cut
        return self.later(session, job)

    def later(self, session, job):
        if not job.done.wait(session.user.patience):
            data = {"queryId": job.id, "getResultUrl": f"/queries/{job.id}/result", "queryAbortsAfterSecs": 300, "progressDesc": None}
            return 200, json.dumps({"success": True, "code": session.user.later_code, "message": "Query execution in progress.", "data": data}).encode(), {}
        return 200, json.dumps(job.answer).encode(), {}

    def abort(self, session, body):
        if met := self.met(session.user, "abort"):
            return met
        job = session.jobs.get(body.get("requestId"))
        if not job or job.done.is_set():
            raise Refused("000605", "Identified SQL statement is not currently executing.", "57014")
        job.abort()
        return ok(None)


def ok(data):
    return 200, json.dumps({"success": True, "code": None, "message": None, "data": data}).encode(), {"content-type": "application/json"}


if __name__ == "__main__":
    PORT = int(sys.argv[1])
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", PORT), Service).serve_forever()
