"""Databricks' SQL in DuckDB, as Databricks' double and its comparison with Spark run it.

sqlglot turns the one into the other. What a block is (`begin atomic … end`), and what Delta refuses, is here: a subquery
inside another one in the condition of a deletion, a block that writes a table whose commits the catalog does not keep, a table
with odd column names and no column mapping.
"""

import base64
import json
import re
import sys

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType


class Failed(Exception):
    """A statement that came to nothing, as Databricks words it."""

    def __init__(self, condition, message, sql_state, code="BAD_REQUEST"):
        super().__init__(message)
        self.code, self.sql_state = code, sql_state
        self.message = f"[{condition}] {message} SQLSTATE: {sql_state}"


class Database:
    """A catalog with a schema `default`."""

    def __init__(self):
        self.catalog = "shop"
        self.may_create = True
        self.properties = {}  # of each table
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
    return condition is not None and any(select.find_ancestor(exp.Select) is not None for select in condition.find_all(exp.Select))


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
    """The statements of a block; what stands before the first one inside an `if` goes with its `if … then`."""
    tokens = sqlglot.tokenize(text, read="databricks")
    found, begun, depth = [], 0, 0
    for at, token in enumerate(tokens):
        word = token.text.lower()
        depth += (word == "case") - (word == "end" and depth > 0)
        if token.token_type == TokenType.SEMICOLON and not depth:
            if at > begun:
                found.append(text[tokens[begun].start:tokens[at - 1].end + 1])
            begun = at + 1
    if begun < len(tokens):
        found.append(text[tokens[begun].start:tokens[-1].end + 1])
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
