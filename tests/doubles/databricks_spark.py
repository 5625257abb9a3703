"""What Databricks' double answers, asked of Spark: the same statements, over the same rows, side by side.

    python databricks_spark.py STATEMENTS.json FOLDER

STATEMENTS.json is the list of statements that a workspace of the double ran. Each runs in DuckDB again, through the double's
own translation, and those that Spark can run without Delta (every select and description, and whatever makes or fills a table)
run in Spark as they are. What both say must be the same. What only Delta can do (`update`, `delete`, `merge`, blocks) is done
by DuckDB alone, and Spark is given the tables that come of it.
"""

import datetime
import decimal
import json
import math
import os
import re
import sys

import databricks_engine as double
import duckdb
from sqlglot import exp

# What only the engine itself decides: numbers of rows, moments, and digests of texts that spell numbers in another way.
ITS_OWN = {"_levin_sequence", "sequence", "_levin_fingerprint", "_levin_first_at", "_levin_last_at", "lease_until", "ran_at",
           "lease_seconds", "idle_seconds", "started_at", "finished_at"}


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat()
    if isinstance(value, (bytearray, bytes, memoryview)):
        return bytes(value).hex()
    if isinstance(value, decimal.Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value + 0.0)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "asDict"):
        return [plain(v) for v in value]
    if hasattr(value, "asDict"):
        return {k: plain(v) for k, v in value.asDict().items()}
    if isinstance(value, (int, bool)) and not isinstance(value, bool):
        return str(value)
    return value if value is None or isinstance(value, (bool, str)) else str(value)


def told(names, rows):
    kept = [i for i, n in enumerate(names) if n not in ITS_OWN]
    return sorted(json.dumps([plain(row[i]) for i in kept], sort_keys=True, ensure_ascii=False) for row in rows)


class Both:
    def __init__(self, folder):
        from pyspark.sql import SparkSession

        self.folder, self.copies, self.compared, self.alone = folder, 0, 0, 0
        settings = {"spark.sql.shuffle.partitions": "1", "spark.default.parallelism": "2", "spark.ui.enabled": "false", "spark.sql.session.timeZone": "UTC",
                    "spark.sql.warehouse.dir": f"{folder}/warehouse", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
                    "spark.local.dir": folder, "spark.sql.ansi.enabled": "true", "spark.sql.sources.default": "parquet", "spark.sql.legacy.createHiveTableByDefault": "false", "spark.driver.memory": "1g"}
        builder = SparkSession.builder.master("local[2]")
        for key, value in settings.items():
            builder = builder.config(key, value)
        self.spark = builder.getOrCreate()
        self.spark.sparkContext.setLogLevel("OFF")
        self.workspace = double.Database()
        self.cursor = self.workspace.database.cursor()
        self.cursor.execute(f'use "{self.workspace.catalog}"."default"')

    def duck(self, text):
        if text.lower().startswith("begin"):
            return double.block(self.workspace, self.cursor, text)
        return double.one(self.workspace, self.cursor, text)

    def copy(self, name):
        """DuckDB's table, for Spark. One that is gone is gone there too."""
        schema, table = name.split(".")
        self.spark.sql(f"drop table if exists `{schema}`.`{table}`")
        self.copies += 1
        file = f"{self.folder}/{self.copies}.parquet"
        try:
            self.cursor.execute(f"copy {double.quoted(schema)}.{double.quoted(table)} to '{file}' (format parquet)")
        except duckdb.CatalogException:
            return
        self.spark.sql(f"create table `{schema}`.`{table}` using parquet as select * from parquet.`{file}`")

    def same(self, text, names, left, right):
        left, right = told(names, left), told(names, right)
        self.compared += 1
        if left != right:
            only = lambda a, b: [row for row in a if row not in b][:5]
            raise SystemExit(f"{text}\nonly in DuckDB: {only(left, right)}\nonly in Spark: {only(right, left)}")

    def rows(self, select):
        found = self.spark.sql(select)
        return found.columns, [tuple(row) for row in found.collect()]

    def contents(self, name):
        schema, table = name.split(".")
        found = self.cursor.execute(f"select * from {double.quoted(schema)}.{double.quoted(table)}")
        table = found.to_arrow_table()
        return table.schema.names, list(zip(*[column.to_pylist() for column in table.columns]))

    def run(self, statement, parameters):
        text = re.sub(r"^\s*/\*.*?\*/\s*", "", statement, flags=re.S)
        if "information_schema" in text.lower():
            return
        if parameters:
            double.one(self.workspace, self.cursor, text, False, parameters)
            self.copy(".".join(part.strip("`") for part in text.split()[2].split(".")))
            self.alone += 1
            return
        described = text.lower().startswith("describe query")
        written, made = set(), False
        if described:
            tree = None
        elif text.lower().startswith("begin"):
            body = re.fullmatch(r"begin\s+atomic\s(.*)\send\s*;?\s*", text, re.I | re.S).group(1)
            trees = [double.parsed(p) for p in double.pieces(body) if re.match(r"(insert|update|delete|merge)\b", p, re.I)]
            written = {double.name_of(t.this if not isinstance(t.this, exp.Schema) else t.this.this) for t in trees}
            tree = None
        else:
            tree = double.parsed(text)
            if isinstance(tree, (exp.Update, exp.Delete, exp.Merge, exp.Alter)):
                written = {double.name_of(tree.this)}
                written |= {double.name_of(r.this) for r in tree.find_all(exp.AlterRename)}
                tree = None
        if isinstance(tree, (exp.Insert, exp.Create, exp.Drop)):
            target = tree.find(exp.Table) if isinstance(tree, exp.Create) else tree.this if not isinstance(tree.this, exp.Schema) else tree.this.this
            if isinstance(tree, exp.Create) and tree.kind == "SCHEMA" or not isinstance(target, exp.Table):
                self.duck(text)
                self.spark.sql(text)
                return
            name = double.name_of(target)
            self.duck(text)
            self.spark.sql(text)
            if isinstance(tree, exp.Drop) or tree.args.get("kind") == "VIEW":
                return
            names, left = self.contents(name)
            self.same(text, names, left, self.rows(f"select * from `{name.replace('.', '`.`')}`")[1])
            if any(n in ITS_OWN for n in names):
                self.copy(name)
            return
        result, _ = self.duck(text)
        if described or isinstance(tree, exp.Query):
            names, right = self.rows(text)
            left = [tuple(row.values()) for row in result.to_pylist()] if result.num_rows and len(set(names)) == len(names) else [tuple(r) for r in zip(*[c.to_pylist() for c in result.columns])]
            if described:
                left, right = [r[:2] for r in left], [(r[0], r[1]) for r in right]
                names = names[:2]
            self.same(text, names, left, right)
            return
        self.alone += 1
        for name in written:
            self.copy(name)


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    with open(sys.argv[1]) as file:
        statements = json.load(file)
    both = Both(sys.argv[2])
    for statement in statements:
        try:
            both.run(statement["sql"], statement["parameters"])
        except (double.Failed, Exception) as wrong:
            raise SystemExit(f"{statement['sql']}\n{type(wrong).__name__}: {getattr(wrong, 'message', wrong)}"[:4000]) from None
    print(json.dumps({"compared": both.compared, "alone": both.alone}))
