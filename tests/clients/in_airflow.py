"""airflow-provider-hightouch in a real Airflow: its operator and its sensor, in DAGs that are run as they are."""

import os
import pathlib
import subprocess
import sys

import stage

here = pathlib.Path(__file__).parent
binaries = pathlib.Path(sys.executable).parent
os.environ |= {
    "AIRFLOW_CONN_HIGHTOUCH_DEFAULT": stage.connection(stage.KEY),
    "AIRFLOW_CONN_WRONG_KEY": stage.connection("not-a-key"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(here / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}
for command in (["db", "migrate"], ["dags", "reserialize"]):
    done = subprocess.run([binaries / "airflow", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

sys.path.append(str(here / "dags"))
import levin  # noqa: E402
from airflow_provider_hightouch.hooks.hightouch import HightouchHook  # noqa: E402
from airflow_provider_hightouch.utils import parse_sync_run_details  # noqa: E402


def run(dag):
    """How each task of a DAG ended, and what each gave."""
    tasks = dag.test().get_task_instances()
    return {task.task_id: str(task.state) for task in tasks}, {
        task.task_id: str(task.xcom_pull(task_ids=task.task_id)) for task in tasks
    }


def parsed(slug, number):
    """A run as the provider reads it."""
    found = HightouchHook().get_sync_run_details(str(stage.SYNCS[slug]), str(number))
    assert [run["id"] for run in found] == [int(number)], found
    return parse_sync_run_details(found[0])


# A run that delivers: the operator waits for it.
states, _ = run(levin.dag)
assert states == {"customers": "success"}, states
[good] = stage.runs("good")
stage.check_end("good", good)
read = parsed("good", good["id"])
assert (read.planned_add, read.successful_add, read.failed_add) == (5, 5, 0), vars(read)
assert (read.query_size, read.completion_ratio, read.error) == (5, 1.0, None), vars(read)

# A warning, a failure, nothing to do; and what is refused before a run is there.
states, _ = run(levin.each)
assert states == {
    "picky": "success",
    "closed": "failed",
    "quiet": "success",
    "strict": "failed",
    "unknown": "failed",
    "keyless": "failed",
    "resting": "failed",
}, states
for slug in ("closed", "quiet"):
    stage.check_end(slug, stage.runs(slug)[0])
# `strict` has run it again: the rejected row came once more.
again, first = stage.runs("picky")
stage.check_end("picky", first)
assert (again["status"], stage.counts(again, "failedRows")) == ("warning", [1, 0, 0]), again
assert len(stage.runs("good")) == 1, "a wrong key has triggered it"
assert stage.runs("resting") == []
assert "DESTINATION_UNUSABLE" in parsed("closed", stage.runs("closed")[0]["id"]).error

# The operator goes on, the sensor follows.
states, gave = run(levin.later)
assert states == {"start": "success", "run": "success", "wait": "success"}, states
assert gave["start"] == str(stage.runs("picky")[0]["id"]), gave

# Triggered while it runs: exactly one more run waits, whoever asks for it.
states, gave = run(levin.while_it_runs)
assert set(states.values()) == {"success"}, states
assert gave["second"] == gave["third"] != gave["first"], gave
ended = {str(run["id"]): run for run in stage.runs("slow")}
assert set(ended) == {gave["first"], gave["second"]}, ended
assert stage.counts(ended[gave["first"]], "successfulRows") == [5, 0, 0], ended
assert stage.counts(ended[gave["second"]], "plannedRows") == [0, 0, 0], ended
