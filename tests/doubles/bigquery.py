"""BigQuery's double: bqemulator, started without the network, and taught what it lacks of scripts.

What is changed, and why:

* It begins by downloading extensions of DuckDB. Without them there is neither GEOGRAPHY nor Avro.
* It does not know the system variable `@@row_count`, which BigQuery sets after each DML statement of a script.
* A `raise` that nobody catches is an internal error of its own; BigQuery ends the job with the message.
* An error inside a script does not say where. BigQuery appends the statement's line and column in the script. So a
  script is not written anew for the default dataset; each of its statements is.
* It takes a delete or an update without `where`, and a `where` behind no `from`, where BigQuery refuses to.
* It makes and drops tables inside a transaction, where BigQuery refuses to.
* Where there is a default dataset, it takes an INFORMATION_SCHEMA for a table.
* A dataset that does not exist has an empty INFORMATION_SCHEMA.
* A table that was renamed keeps its old name in INFORMATION_SCHEMA.
"""

import re
from contextvars import ContextVar

import sqlglot
from bqemulator.cli import main
from bqemulator.domain.errors import DomainError, InvalidQueryError, NotFoundError
from bqemulator.jobs import executor
from bqemulator.scripting import interpreter
from bqemulator.scripting.exceptions import ScriptRaise
from bqemulator.scripting.parser import parse_script
from bqemulator.sql.rewriter.default_dataset import qualify_unqualified_tables
from bqemulator.storage.engine import DuckDBEngine
from sqlglot import exp

DuckDBEngine._load_spatial = lambda self: None
DuckDBEngine._load_format_extensions = lambda self: None

ROW_COUNT = re.compile(r"@@row_count\b", re.IGNORECASE)
DDL = re.compile(r"^\s*(create|drop|alter|truncate)\b(?!\s+temp)", re.IGNORECASE)
CATALOGUE = re.compile(r"`?([\w-]+)`?\s*\.\s*INFORMATION_SCHEMA\s*\.", re.IGNORECASE)
RENAMED = re.compile(
    r"^\s*alter\s+table\s+((?:`[^`]+`|[\w-]+)(?:\s*\.\s*(?:`[^`]+`|[\w-]+))*)\s+rename\s+to\s+(`[^`]+`|\w+)\s*$",
    re.IGNORECASE,
)


def has_conditions(sql):
    """Refuses what is a syntax error in BigQuery's language, and not in DuckDB's."""
    try:
        tree = sqlglot.parse_one(sql, read="bigquery")
    except sqlglot.errors.SqlglotError:
        return
    if isinstance(tree, (exp.Delete, exp.Update)) and tree.args.get("where") is None:
        raise InvalidQueryError("Syntax error: Expected keyword WHERE but got end of script")
    for select in tree.find_all(exp.Select):
        if select.args.get("where") is not None and not (select.args.get("from") or select.args.get("from_")):
            raise InvalidQueryError("Syntax error: Query without FROM clause cannot have a WHERE clause")


def datasets_exist(sql, project_id, ctx):
    """Refuses to read the catalogue of a dataset that is not there."""
    for dataset in CATALOGUE.findall(sql):
        if ctx.catalog.get_dataset(project_id, dataset) is None:
            raise NotFoundError(f"Not found: Dataset {project_id}:{dataset} was not found in location US")


DEFAULT_DATASET = ContextVar("default dataset", default=None)


def qualified(sql):
    """A statement of a script whose tables without a dataset are in the default one."""
    default = DEFAULT_DATASET.get()
    if default is None:
        return sql
    return qualify_unqualified_tables(sql, default_project=default[0], default_dataset=default[1])


class Interpreter(interpreter.ScriptInterpreter):
    """Runs scripts with `@@row_count`, and says where in the script an error is."""

    _source = ""
    _at = 0
    _row_count = None

    async def run(self, source):
        self._source = source
        return await super().run(source)

    async def _exec_sql(self, sql):
        self._at = max(self._source.find(sql.strip(), self._at), 0)
        try:
            if self._active_txn is not None and DDL.match(sql):
                raise InvalidQueryError("DDL statements are not supported in a transaction")
            await super()._exec_sql(qualified(sql))
        except DomainError as error:
            before = self._source[: self._at]
            where = f"[{before.count(chr(10)) + 1}:{self._at - before.rfind(chr(10))}]"
            error.message = f"Query error: {error.message} at {where}"
            raise

    async def _run_query(self, sql):
        sql = qualified(sql)
        has_conditions(sql)
        datasets_exist(sql, self._project_id, self._ctx)
        count = "null" if self._row_count is None else str(self._row_count)
        table = await super()._run_query(ROW_COUNT.sub(count, sql))
        if executor.classify_statement_type(sql) in {"INSERT", "UPDATE", "DELETE", "MERGE"}:
            self._row_count = executor._extract_dml_affected_rows(table)
        return table


for module in (interpreter, executor):
    if hasattr(module, "ScriptInterpreter"):
        module.ScriptInterpreter = Interpreter


def ended_by_raise(run):
    """The same coroutine, whose uncaught `raise` is an error of the query."""

    async def caught(*args, **kwargs):
        try:
            return await run(*args, **kwargs)
        except ScriptRaise as raised:
            raise InvalidQueryError(raised.message or "raised") from raised

    return caught


executor._run_script = ended_by_raise(executor._run_script)


def follows_renames(run):
    """The same coroutine, after which the catalogue calls a renamed table by its new name."""

    async def followed(project_id, job_id, sql, query_params, ctx, **kwargs):
        has_conditions(sql)
        if executor.classify_statement_type(sql) == "SELECT":
            datasets_exist(sql, project_id, ctx)
        done = await run(project_id, job_id, sql, query_params, ctx, **kwargs)
        renamed = RENAMED.match(sql)
        if renamed:
            names = [part.strip().strip("`") for part in re.findall(r"`[^`]+`|[\w-]+", renamed[1])]
            *project, dataset, old = ".".join(names).split(".")
            project = project[0] if project else project_id
            table = ctx.catalog.get_table(project, dataset, old)
            new = renamed[2].strip("`")
            if table is not None:
                ctx.catalog.delete_table(project, dataset, old)
                if ctx.catalog.get_table(project, dataset, new) is None:
                    ctx.catalog.create_table(table.model_copy(update={"table_id": new}))
        return done

    return followed


from bqemulator.api.routes import jobs  # noqa: E402  It takes the executor's names when it is imported.

apply_default_dataset = jobs._apply_default_dataset


def default_dataset_of_script(sql, query_config, *, request_project_id):
    """Remembers the default dataset of a script, and applies that of a single statement."""
    DEFAULT_DATASET.set(None)
    try:
        single = len(parse_script(sql).statements) == 1
    except DomainError:
        single = True
    if CATALOGUE.search(sql):
        return sql
    default = query_config.get("defaultDataset") or {}
    if single or not default.get("datasetId"):
        return apply_default_dataset(sql, query_config, request_project_id=request_project_id)
    DEFAULT_DATASET.set((default.get("projectId") or request_project_id, default["datasetId"]))
    return sql


jobs._apply_default_dataset = default_dataset_of_script
jobs.execute_query_job = follows_renames(executor.execute_query_job)

if __name__ == "__main__":
    main()
