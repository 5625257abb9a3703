"""Redshift's statements on another engine: sqlglot turns each into DuckDB's SQL, and DuckDB runs it.

Reads a JSON list of statements from standard input and writes a list of as many answers: the rows of one that returns rows,
each value as text and in an order of their own, `null` for others. What DuckDB has under another name is made before the first.
"""

import decimal
import json
import sys

import duckdb
import sqlglot

# Functions of Redshift that neither sqlglot nor DuckDB knows.
MACROS = [
    "create type super as json",
    "create macro sha2(value, bits) as sha256(value)",
    "create macro to_varbyte(value, form) as encode(value)",
    "create macro json_serialize(value) as cast(value as varchar)",
    "create macro json_parse(value) as cast(value as json)",
]


def text(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (decimal.Decimal, int, float)):
        return str(value)
    return value if isinstance(value, str) else str(value)


def main():
    connection = duckdb.connect()
    for macro in MACROS:
        connection.execute(macro)
    answers = []
    for statement in json.load(sys.stdin):
        spelled = sqlglot.transpile(statement, read="redshift", write="duckdb")
        try:
            assert len(spelled) == 1, f"{len(spelled)} statements"
            connection.execute(spelled[0])
        except Exception as error:
            sys.exit(f"{error}\n{statement}\nas\n{spelled}")
        returns_rows = statement.lstrip().lower().startswith(("select", "with"))
        rows = [[text(value) for value in row] for row in connection.fetchall()] if returns_rows else None
        answers.append(sorted(rows, key=str) if returns_rows else None)
    json.dump(answers, sys.stdout)


main()
