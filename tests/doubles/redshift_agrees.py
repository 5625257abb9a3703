"""Redshift's statements on another engine: sqlglot turns each into DuckDB's SQL, and DuckDB runs it.

Reads a JSON list of statements from standard input and writes a list of as many answers: the rows of one that returns rows,
each value as text and in an order of their own, `null` for others. What DuckDB has under another name is made before the first.

Each statement is looked at as well: Redshift takes none whose subquery refers to a row of a query that is not the next one around
it, nor one that does so in the ON of a join, beside a window function, or in a GROUP BY.
"""

import decimal
import json
import sys

import duckdb
import sqlglot
from sqlglot import exp

# Functions of Redshift that neither sqlglot nor DuckDB knows.
MACROS = [
    "create type super as json",
    "create macro sha2(value, bits) as sha256(value)",
    "create macro to_varbyte(value, form) as encode(value)",
    "create macro json_serialize(value) as coalesce(cast(value as varchar), 'null')",
    "create macro json_serialize_to_varbyte(value) as encode(coalesce(cast(value as varchar), 'null'))",
    "create macro json_size(value) as strlen(cast(value as varchar))",
    "create macro json_parse(value) as cast(value as json)",
]


def names_of(query):
    """What the rows of a query, an update or a deletion are called in it."""
    sources = [query.this] if isinstance(query, (exp.Update, exp.Delete)) else []
    source = query.args.get("from_") or query.args.get("from")
    sources += [source.this] if source else []
    sources += [join.this for join in query.args.get("joins") or []]
    sources += query.args.get("using") or []
    return {source.alias_or_name for source in sources}


def around(node):
    """The query around a node, and what of it the node stands in."""
    child, parent = node, node.parent
    while parent is not None and not isinstance(parent, (exp.Select, exp.Update, exp.Delete)):
        child, parent = parent, parent.parent
    return parent, child


def look(statement):
    for column in sqlglot.parse_one(statement, read="redshift").find_all(exp.Column):
        query, place = around(column)
        if not column.table or query is None or column.table in names_of(query):
            continue
        outer, outer_place = around(query)
        assert outer is not None and column.table in names_of(outer), f"{column} skips a query"
        assert not isinstance(outer_place, exp.Join), f"{column} stands in the ON of a join"
        assert not isinstance(place, exp.Group), f"{column} stands in a GROUP BY"
        assert not list(query.find_all(exp.Window)), f"{column} stands beside a window function"


def text(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (decimal.Decimal, int, float)):
        return str(value)
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return value if isinstance(value, str) else str(value)


def main():
    connection = duckdb.connect()
    for macro in MACROS:
        connection.execute(macro)
    answers = []
    for statement in json.load(sys.stdin):
        spelled = sqlglot.transpile(statement, read="redshift", write="duckdb")
        try:
            look(statement)
            assert len(spelled) == 1, f"{len(spelled)} statements"
            connection.execute(spelled[0])
        except Exception as error:
            sys.exit(f"{error}\n{statement}\nas\n{spelled}")
        returns_rows = statement.lstrip().lower().startswith(("select", "with"))
        rows = [[text(value) for value in row] for row in connection.fetchall()] if returns_rows else None
        answers.append(sorted(rows, key=str) if returns_rows else None)
    json.dump(answers, sys.stdout)


main()
