"""A double of Databricks' Statement Execution API: DuckDB runs the statements, this says what Databricks says over the wire.

    python databricks_service.py PORT

sqlglot turns Databricks' SQL into DuckDB's. What a block is (`begin atomic … end`), what Delta refuses (a subquery inside
another one in the condition of a deletion, a block that writes a table whose commits the catalog does not keep, a table with
odd column names and no column mapping), states of statements, chunks behind links that expire, tokens, the history of
queries, and troubles that a test asks for are here.

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
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

workspaces = {}
statements = {}
links = {}


class Failed(Exception):
    """A statement that came to nothing, as Databricks words it."""

    def __init__(self, condition, message, sql_state, code="BAD_REQUEST"):
        super().__init__(message)
        self.code, self.sql_state = code, sql_state
        self.message = f"[{condition}] {message} SQLSTATE: {sql_state}"


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status, code, message, headers=()):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Workspace:
    def __init__(self, name):
        self.name = name
        self.token = "dapi-" + name
        self.client_id = self.client_secret = None
        self.expires_in = 3600
        self.tokens = {}  # those that the token server gave: until when each holds
        self.granted = 0
        self.warehouse = "wh-" + name
        self.catalog = "shop"
        self.starts = 0.0  # seconds for which the warehouse is still asleep
        self.slow = 0.0  # seconds that each statement takes longer
        self.chunk_rows = 10_000
        self.link_seconds = 900.0
        self.may_create = True
        self.conflicts = 0  # writes that another one undoes
        self.troubles = []  # each: at, times, status, code, message, retry_after, cut
        self.log = []
        self.requests = []
        self.properties = {}  # of each table
        self.lock = threading.RLock()
        self.database = duckdb.connect(":memory:", config={"threads": 1})
        self.database.execute(f"attach ':memory:' as {quoted(self.catalog)}; use {quoted(self.catalog)}")
        self.database.execute('create schema "default"; set timezone = \'UTC\'')


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


# ---- types ----

SIMPLE = {"BOOLEAN": "boolean", "TINYINT": "tinyint", "SMALLINT": "smallint", "INTEGER": "int", "BIGINT": "bigint",
          "HUGEINT": "decimal(38,0)", "FLOAT": "float", "DOUBLE": "double", "VARCHAR": "string", "DATE": "date",
          "TIMESTAMP": "timestamp_ntz", "TIMESTAMP WITH TIME ZONE": "timestamp", "BLOB": "binary", "JSON": "variant",
          "INTERVAL": "interval day to second", '"NULL"': "void", "UTINYINT": "smallint", "UINTEGER": "bigint"}


def named(kind):
    """DuckDB's type in Databricks' words."""
    text = str(kind)
    if text in SIMPLE:
        return SIMPLE[text]
    if kind.id == "decimal":
        return text.lower()
    if kind.id in ("list", "array"):
        return f"array<{named(kind.children[0][1])}>"
    if kind.id == "map":
        return f"map<{named(kind.children[0][1])},{named(kind.children[1][1])}>"
    if kind.id == "struct":
        return f"struct<{','.join(f'{name}:{named(child)}' for name, child in kind.children)}>"
    return text.lower()


# ---- from one language to the other ----


def functions(node):
    """What sqlglot leaves as it was."""
    if isinstance(node, exp.Anonymous):
        name = node.name.lower()
        if name == "monotonically_increasing_id":
            return exp.Sub(this=exp.Window(this=exp.RowNumber()), expression=exp.Literal.number(1))
    if isinstance(node, exp.JSONFormat):
        node.set("options", None)
    if isinstance(node, exp.Collate):
        return node.this
    if isinstance(node, exp.DataType) and node.this == exp.DataType.Type.VARIANT:
        return exp.DataType.build("json", dialect="duckdb")
    if isinstance(node, exp.Properties):
        return None
    return node


def translated(tree):
    """The tree as DuckDB's text; the tree is not the same afterwards."""
    return tree.transform(functions, copy=False).sql("duckdb", copy=False)


def parsed(text):
    try:
        return sqlglot.parse_one(text, read="databricks")
    except Exception as wrong:
        said = re.sub(r"\x1b\[\d+m", "", str(wrong)).splitlines()[0]
        raise Failed("PARSE_SYNTAX_ERROR", f"Syntax error: {said}.", "42601") from None


def name_of(table):
    return f"{(table.db or 'default').lower()}.{table.name.lower()}"


def nested(condition):
    """Whether a subquery stands inside another one."""
    return condition and any(inner.find_ancestor(exp.Select) is not None and inner is not outer
                             for outer in condition.find_all(exp.Select) for inner in outer.find_all(exp.Select) if inner is not outer)


def writes(tree):
    return isinstance(tree, (exp.Insert, exp.Update, exp.Delete, exp.Merge))


def allowed(workspace, tree, in_block):
    """What Delta and its transactions take."""
    if in_block and not writes(tree) and not isinstance(tree, exp.Query):
        raise Failed("TRANSACTION_NOT_SUPPORTED.COMMAND", f"Command {tree.key} is not supported in a transaction. Only SELECT / INSERT / MERGE / UPDATE / DELETE are supported.", "0A000")
    if writes(tree):
        target = tree.this if not isinstance(tree.this, exp.Schema) else tree.this.this
        properties = workspace.properties.get(name_of(target), {})
        if in_block and properties.get("delta.feature.catalogManaged") != "supported":
            raise Failed("TRANSACTION_NOT_SUPPORTED.TABLE", f"Table {name_of(target)} does not have catalog commits enabled.", "0A000")
    if isinstance(tree, (exp.Update, exp.Delete)):
        if nested(tree.args.get("where")):
            raise Failed("UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY", "Nested subquery is not supported in the condition.", "0A000")
        if isinstance(tree, exp.Update) and (tree.args.get("from_") or any(s.find(exp.Select) for s in tree.expressions)):
            raise Failed("PARSE_SYNTAX_ERROR", "An update reads its own table only.", "42601")
    if isinstance(tree, exp.Merge) and tree.args["on"].find(exp.Select):
        raise Failed("DELTA_UNSUPPORTED_SUBQUERY", "Subqueries are not supported in the MERGE condition.", "0AKDD")
    if isinstance(tree, exp.Create) and not workspace.may_create:
        raise Failed("INSUFFICIENT_PERMISSIONS", f"User does not have permission CREATE on {tree.find(exp.Table).sql('databricks')}.", "42501", "PERMISSION_DENIED")
    if tree.find(exp.Window) and any(isinstance(w.this, exp.RowNumber) and not w.args.get("order") for w in tree.find_all(exp.Window)):
        raise Failed("WINDOW_FUNCTION_WITHOUT_ORDER_BY", "Window function row_number() requires window to be ordered.", "42601")


WORDS = (
    (duckdb.CatalogException, "already exists", "TABLE_OR_VIEW_ALREADY_EXISTS", "42P07"),
    (duckdb.CatalogException, "schema", "SCHEMA_NOT_FOUND", "42704"),
    (duckdb.CatalogException, "function", "UNRESOLVED_ROUTINE", "42883"),
    (duckdb.CatalogException, "", "TABLE_OR_VIEW_NOT_FOUND", "42P01"),
    (duckdb.ConversionException, "", "CAST_INVALID_INPUT", "22018"),
    (duckdb.OutOfRangeException, "", "ARITHMETIC_OVERFLOW", "22003"),
    (duckdb.BinderException, "", "UNRESOLVED_COLUMN.WITH_SUGGESTION", "42703"),
    (duckdb.TransactionException, "", "DELTA_CONCURRENT_APPEND", "2D521"),
    (duckdb.ParserException, "", "PARSE_SYNTAX_ERROR", "42601"),
    (duckdb.InvalidInputException, "", "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE", "21506"),
)


def worded(error):
    text = str(error)
    for kind, part, condition, sql_state in WORDS:
        if isinstance(error, kind) and part in text.lower():
            return Failed(condition, text, sql_state)
    return Failed("INTERNAL_ERROR", f"{type(error).__name__}: {text}", "XX000", "INTERNAL_ERROR")


def catalogued(workspace, tree):
    """The catalogue's views, as Unity Catalog has them."""
    views = {"tables": "select lower(table_schema) as table_schema, lower(table_name) as table_name, case table_type when 'VIEW' then 'VIEW' else 'MANAGED' end as table_type, "
                       "case table_type when 'VIEW' then 'UNKNOWN_DATA_SOURCE_FORMAT' else 'DELTA' end as data_source_format from information_schema.tables where table_catalog = {}",
             "schemata": "select lower(schema_name) as schema_name from information_schema.schemata where catalog_name = {}"}

    def view(node):
        if isinstance(node, exp.Table) and node.db.lower() == "information_schema":
            text = views[node.name.lower()].format("'" + workspace.catalog + "'")
            return sqlglot.parse_one(text, read="duckdb").subquery(node.alias or node.name)
        return node

    return tree.transform(view, copy=False)


def one(workspace, cursor, text, in_block=False, parameters=None):
    """Runs one statement; its result as Arrow (or none), and the rows that it wrote."""
    if parameters:
        return load(cursor, text, parameters)
    described = re.match(r"\s*describe\s+query\s+(.*)", text, re.I | re.S)
    if described:
        tree = parsed(described.group(1))
        allowed(workspace, tree, in_block)
        found = run(cursor, f"select * from ({translated(tree)}\n) limit 0")
        names, kinds = [c[0] for c in found.description], [named(c[1]) for c in found.description]
        return pa.table({"col_name": names, "data_type": kinds, "comment": pa.array([None] * len(names), pa.string())}), None
    tree = parsed(text)
    allowed(workspace, tree, in_block)
    if "information_schema" in text.lower():
        tree = catalogued(workspace, tree)
    if isinstance(tree, exp.Query):
        found = run(cursor, translated(tree))
        kinds = [named(c[1]) for c in found.description]
        return carried(found.to_arrow_table(), kinds), None
    if isinstance(tree, exp.Merge) and unconditional(tree):
        return None, counted(run(cursor, deletion(tree)))
    if writes(tree):
        return None, counted(run(cursor, translated(tree)))
    if isinstance(tree, exp.Create) and tree.kind == "TABLE":
        name = name_of(tree.find(exp.Table))
        properties = {p.name: p.args["value"].name for p in (tree.args.get("properties") or exp.Properties(expressions=[])).expressions if isinstance(p, exp.Property) and "value" in p.args}
        filled, optional = tree.expression is not None, bool(tree.args.get("exists"))
        if name in workspace.properties and optional:
            return None, 0 if filled else None
        written = counted(run(cursor, translated(tree)))
        try:
            if filled:  # what tests declare themselves has what it needs
                delta_takes(run(cursor, f"select * from {'.'.join(quoted(part) for part in name.split('.'))} limit 0").description, properties)
        except Failed:
            cursor.execute(f"drop table {'.'.join(quoted(part) for part in name.split('.'))}")
            raise
        workspace.properties[name] = properties
        return None, written if filled else None
    if isinstance(tree, exp.Alter):
        rename = tree.find(exp.AlterRename)
        names = (name_of(tree.this), name_of(rename.this)) if rename else ()
        run(cursor, translated(tree))
        if names:
            workspace.properties[names[1]] = workspace.properties.pop(names[0], {})
        return None, None
    dropped = name_of(tree.this) if isinstance(tree, exp.Drop) and isinstance(tree.this, exp.Table) else None
    run(cursor, translated(tree))
    workspace.properties.pop(dropped, None)
    return None, None


def delta_takes(columns, properties):
    """What a Delta table's columns may be."""
    names = [c[0] for c in columns]
    if properties.get("delta.columnMapping.mode") != "name" and any(set(" ,;{}()\n\t=") & set(n) for n in names):
        raise Failed("DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES", f"Found invalid character(s) among {names}.", "42K05")
    if any(named(c[1]).startswith("interval") for c in columns):
        raise Failed("DELTA_UNSUPPORTED_DATA_TYPES", "Found columns using unsupported data types: interval.", "0AKDC")


def unconditional(tree):
    whens = tree.args["whens"].expressions
    return len(whens) == 1 and not whens[0].args.get("condition") and whens[0].args["matched"] and whens[0].args["then"].name.lower() == "delete"


def deletion(tree):
    """Whatever a merge matches that only deletes, once or more often, is deleted once."""
    return f"delete from {translated(tree.this)} using {translated(tree.args['using'])} where {translated(tree.args['on'])}"


def run(cursor, text):
    try:
        return cursor.execute(text)
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        print(f"{text}\n  {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise worded(error) from None


def counted(found):
    row = found.fetchone() if found.description else None
    return int(row[0]) if row and isinstance(row[0], int) else 0


def load(cursor, text, parameters):
    """The one form in which rows are loaded: a parameter that holds them all as JSON."""
    form = re.fullmatch(r"(?:/\*.*?\*/\s*)?insert into (\S+) \((.*?)\) select (.*?) from \(select explode\(from_json\(:rows, '(.*)'\)\) as r\)", text.strip(), re.S)
    if not form:
        raise Failed("PARSE_SYNTAX_ERROR", "the double knows no such statement with parameters", "42601")
    target, names, _, kinds = form.groups()
    target = ".".join(quoted(part.strip("`")) for part in target.split("."))
    names = [n.strip().strip("`") for n in names.split(",")]
    declared = re.fullmatch(r"array<struct<(.*)>>", kinds).group(1)
    kinds = dict(re.findall(r"`(.*?)`: ?([a-z]+(?:\([^)]*\))?)", declared))
    into = {"string": "VARCHAR", "binary": "BLOB", "int": "INTEGER", "timestamp_ntz": "TIMESTAMP", "timestamp": "TIMESTAMPTZ"}
    rows = json.loads(next(p["value"] for p in parameters if p["name"] == "rows"))
    values = ", ".join(f"cast(? as {into.get(kinds[n], kinds[n])})" for n in names)
    columns = ", ".join(quoted(n) for n in names)
    for row in rows:
        given = [base64.b64decode(row[n]) if kinds[n] == "binary" and row.get(n) is not None else row.get(n) for n in names]
        try:
            cursor.execute(f"insert into {target} ({columns}) values ({values})", given)
        except duckdb.Error as error:
            raise worded(error) from None
    return None, len(rows)


def carried(table, kinds):
    """Arrow as Databricks sends it: whole numbers of 128 bits are decimals, objects are texts."""
    columns = []
    for column, kind in zip(table.columns, kinds):
        if kind == "variant" or kind.startswith("interval"):
            column = column.cast(pa.string()) if not pa.types.is_string(column.type) else column
        columns.append(column)
    fields = [pa.field(n, c.type) for n, c in zip(table.schema.names, columns)]
    made = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    return made.replace_schema_metadata({"kinds": json.dumps(kinds)})


# ---- blocks ----


def pieces(text):
    """The statements of a block, with what `if` encloses."""
    tokens = sqlglot.tokenize(text, read="databricks")
    words = [t for t in tokens if t.token_type != TokenType.SEMICOLON or True]
    found, begun = [], 0
    depth = 0
    for at, token in enumerate(words):
        if token.text.lower() == "case":
            depth += 1
        elif token.text.lower() == "end" and depth:
            depth -= 1
        if token.token_type == TokenType.SEMICOLON and not depth:
            if at > begun:
                found.append(text[words[begun].start:words[at - 1].end + 1])
            begun = at + 1
    if begun < len(words):
        found.append(text[words[begun].start:words[-1].end + 1])
    return found


def block(workspace, cursor, text):
    """`begin atomic … end`: all of it or nothing. Its result is that of its last select."""
    body = re.fullmatch(r"(?:/\*.*?\*/\s*)?begin\s+atomic\s(.*)\send\s*;?\s*", text, re.I | re.S)
    if not body:
        raise Failed("PARSE_SYNTAX_ERROR", "Syntax error at or near 'begin'.", "42601")
    variables, row_count, result = {}, None, None
    cursor.execute("begin transaction")
    try:
        skipping = False
        declaring = True
        for piece in pieces(body.group(1)):
            lower = piece.lower()
            if lower.startswith("declare "):
                if not declaring:
                    raise Failed("INVALID_VARIABLE_DECLARATION.ONLY_AT_BEGIN", "Variables can only be declared at the beginning of the compound.", "42K0M")
                variables[lower.split()[1]] = None
                continue
            declaring = False
            if lower.startswith("if "):
                condition, piece = re.split(r"\s+then\s+", piece[3:], maxsplit=1)
                skipping = not cursor.execute("select " + put_in(condition, variables)).fetchone()[0]
                lower = piece.lower()
            if lower == "end if":
                skipping = False
                continue
            if skipping:
                continue
            diagnostics = re.fullmatch(r"get\s+diagnostics\s+(\w+)\s*=\s*row_count", lower)
            signal = re.fullmatch(r"signal\s+sqlstate\s+'(.{5})'\s+set\s+message_text\s*=\s*'(.*)'", piece, re.I)
            if diagnostics:
                if diagnostics.group(1) not in variables:
                    raise Failed("UNRESOLVED_VARIABLE", f"Cannot resolve variable {diagnostics.group(1)}.", "42883")
                variables[diagnostics.group(1)] = row_count
            elif signal:
                raise Failed("USER_RAISED_EXCEPTION", signal.group(2), signal.group(1))
            elif re.match(r"select\s+levin_count", lower):
                result, _ = one(workspace, cursor, put_in(piece, variables), True)
            else:
                try:
                    result, row_count = one(workspace, cursor, piece, True)
                except Failed as failed:
                    line = text[:text.index(piece)].count("\n") + 1
                    failed.message += f" (line {line}, pos 0)"
                    raise
        cursor.execute("commit")
    except duckdb.Error as error:
        rolled_back(cursor)
        raise (error if isinstance(error, duckdb.InterruptException) else worded(error)) from None
    except BaseException:
        rolled_back(cursor)
        raise
    return result, None


def rolled_back(cursor):
    try:
        cursor.execute("rollback")
    except duckdb.Error:
        pass


def put_in(text, variables):
    for name, value in variables.items():
        text = re.sub(rf"\b{name}\b", "null" if value is None else f"cast({value} as bigint)", text)
    return text


# ---- statements ----


class Statement:
    def __init__(self, workspace, request):
        self.workspace, self.request = workspace, request
        self.id = str(uuid.uuid4())
        self.state, self.error, self.result = "PENDING", None, None
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
            self.cancelled.wait(workspace.slow)
        try:
            if self.cancelled.is_set():
                raise duckdb.InterruptException("before it began")
            self.result = self.executed()
            self.state = "SUCCEEDED"
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
        except duckdb.Error:
            raise Failed("SCHEMA_NOT_FOUND", f"The schema `{catalog}`.`{schema}` cannot be found.", "42704") from None
        plain = re.sub(r"^\s*/\*.*?\*/\s*", "", text, flags=re.S)
        if workspace.conflicts > 0 and re.match(r"begin|insert|update|delete|merge", plain, re.I):
            workspace.conflicts -= 1
            raise Failed("DELTA_CONCURRENT_APPEND", "Transaction conflict detected. A concurrent WRITE added data.", "2D521")
        if plain.lower().startswith("begin"):
            table, written = block(workspace, self.cursor, text)
        else:
            table, written = one(workspace, self.cursor, plain, False, self.request.get("parameters"))
        if table is None and written is not None:
            table = carried(pa.table({"num_affected_rows": pa.array([written], pa.int64())}), ["bigint"])
        return table

    def stop(self):
        self.cancelled.set()
        if not self.over.is_set():
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
        if until < time.time():
            raise Refused(403, "AccessDenied", "Request has expired")
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
    workspace = workspaces.setdefault(name, None) or Workspace(name)
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
