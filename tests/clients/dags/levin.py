"""The DAGs that in_airflow.py runs. Each task is named after the sync that it triggers."""

import os
import pathlib
import sys

from airflow.sdk import DAG, task
from airflow_provider_hightouch.operators.hightouch import HightouchTriggerSyncOperator
from airflow_provider_hightouch.sensors.hightouch import HightouchSyncRunSensor

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import stage  # noqa: E402

with DAG("levin") as dag:
    # Triggers the sync, waits for the end of the run, and fails with it.
    HightouchTriggerSyncOperator(task_id="customers", sync_slug="good")

with DAG("levin_later") as later:
    # Triggers the sync and goes on; the sensor waits. Its run is no template field: `expand` hands it over.
    started = HightouchTriggerSyncOperator(task_id="start", sync_slug="picky", synchronous=False)
    HightouchSyncRunSensor.partial(
        task_id="wait", sync_id=str(stage.SYNCS["picky"]), poke_interval=1
    ).expand(sync_run_id=task(lambda run: [run], task_id="run")(started.output))

with DAG("each") as each:
    for slug in ("picky", "closed", "quiet"):
        HightouchTriggerSyncOperator(task_id=slug, sync_id=str(stage.SYNCS[slug]), wait_seconds=0.2)
    HightouchTriggerSyncOperator(task_id="strict", sync_slug="picky", error_on_warning=True, wait_seconds=0.2)
    HightouchTriggerSyncOperator(task_id="unknown", sync_slug="nowhere", wait_seconds=0.2)
    HightouchTriggerSyncOperator(task_id="keyless", sync_slug="good", connection_id="wrong_key", wait_seconds=0.2)
    HightouchTriggerSyncOperator(task_id="resting", sync_slug="resting", wait_seconds=0.2)

with DAG("while_it_runs") as while_it_runs:
    slow = {"sync_slug": "slow", "synchronous": False}
    first = HightouchTriggerSyncOperator(task_id="first", **slow)

    @task
    def running():
        """Comes back once the first run is at its requests, which are kept back."""
        import time

        while stage.runs("slow")[0]["status"] != "processing":
            time.sleep(0.1)

    second = HightouchTriggerSyncOperator(task_id="second", **slow)
    third = HightouchTriggerSyncOperator(task_id="third", **slow)
    released = task(stage.release, task_id="release")()
    waited = HightouchSyncRunSensor.partial(
        task_id="both", sync_id=str(stage.SYNCS["slow"]), poke_interval=0.2
    ).expand(sync_run_id=task(lambda *runs: list(runs), task_id="runs")(first.output, second.output))
    first >> running() >> second >> third >> released >> waited
