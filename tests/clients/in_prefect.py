"""prefect-hightouch: its flow and its tasks, run by Prefect 2 (the package cannot be imported beside Prefect 3)."""

import asyncio
import os

from prefect_hightouch import HightouchCredentials
from prefect_hightouch.api_client.client import AuthenticatedClient
from prefect_hightouch.syncs import trigger_sync_run_and_wait_for_completion


class LevinCredentials(HightouchCredentials):
    """The same credentials, for another address."""

    def get_client(self):
        url = os.environ["LEVIN_URL"] + "/api/v1"
        return AuthenticatedClient(base_url=url, token=self.token.get_secret_value())


async def customers(sync_id):
    """Triggers a sync and waits until it is well; a warning is none that Prefect knows."""
    credentials = LevinCredentials(token=os.environ["LEVIN_KEY"])
    return await trigger_sync_run_and_wait_for_completion(
        credentials, sync_id, max_wait_seconds=3, poll_frequency_seconds=1
    )


import httpx  # noqa: E402
import stage  # noqa: E402
from prefect_hightouch.api_client.api.default import get_sync, list_model, list_sync, list_sync_runs, trigger_run_custom  # noqa: E402
from prefect_hightouch.api_client.api.default import get_destination, get_model, get_source, list_destination, list_source, trigger_run  # noqa: E402
from prefect_hightouch.api_client.models import SyncStatus, TriggerRunCustomInput, TriggerRunInput  # noqa: E402
from prefect_hightouch.exceptions import HightouchSyncRunFailed, HightouchSyncRunTimedOut  # noqa: E402


def raised(wanted, *what):
    """The error that these words are in."""
    try:
        what[0](*what[1:])
    except wanted as error:
        return str(error)
    raise AssertionError(f"no {wanted}")


def flow(slug):
    return asyncio.run(customers(str(stage.SYNCS[slug])))


# A run that delivers: Prefect follows the sync, not the run.
sync = flow("good")
assert (sync.status, sync.slug, sync.id) == (SyncStatus.SUCCESS, "good", str(stage.SYNCS["good"])), sync
[good] = stage.runs("good")
stage.check_end("good", good)
assert sync.last_run_at.timestamp() > 0

# A failure.
assert "'closed'" in raised(HightouchSyncRunFailed, flow, "closed")
stage.check_end("closed", stage.runs("closed")[0])

# Nothing to do: before the run it was well already, and it is not taken for done before its end.
before = stage.ask(f"/syncs/{stage.SYNCS['quiet']}")
assert before["status"] == "success", before
assert flow("quiet").last_run_at.isoformat() > before["lastRunAt"][:19]
assert stage.runs("quiet")[0]["finishedAt"], "the flow came back before the run's end"
stage.check_end("quiet", stage.runs("quiet")[0])

# Prefect does not know that a warning is an end: it waits as long as it is told to, then gives up.
assert "Max wait time of 3 seconds" in raised(HightouchSyncRunTimedOut, flow, "picky")
[picky] = stage.runs("picky")
stage.check_end("picky", picky)

# Status after a trigger: what was the end of the run before is not shown again.
client = LevinCredentials(token=stage.KEY).get_client()
number = str(stage.SYNCS["slow"])
first = trigger_run.sync(client=client, sync_id=number, json_body=TriggerRunInput())
assert get_sync.sync(client=client, sync_id=number).status in (
    SyncStatus.QUEUED, SyncStatus.QUERYING, SyncStatus.PROCESSING)
stage.release()
assert first.id == str(stage.runs("slow")[0]["id"])

# By slug, with `fullResync`, which this client says is true unless told otherwise.
asked = trigger_run_custom.sync(client=client, json_body=TriggerRunCustomInput(sync_slug="good"))
stage.end("good")
[run] = list_sync_runs.sync(client=client, sync_id=stage.SYNCS["good"], run_id=asked.id).data
assert (run.id, run.planned_rows.added_count, run.status) == (asked.id, 5, "success"), run

# Lists and objects.
syncs = {sync["slug"]: sync for sync in stage.ask("/syncs")["data"]}
assert raised(TypeError, lambda: list_sync.sync(client=client)), "of a sync that never ran it reads null as a moment"
[found] = list_sync.sync(client=client, slug="good").data
assert found.id == str(stage.SYNCS["good"]) and found.primary_key == "id", found
[source] = list_source.sync(client=client).data
[destination] = list_destination.sync(client=client).data
[model] = list_model.sync(client=client).data
assert [source.slug, destination.slug, model.slug] == ["wh", "crm", "customers"]
assert get_source.sync(client=client, source_id=source.id) == source
assert get_destination.sync(client=client, destination_id=destination.id) == destination
assert get_model.sync(client=client, model_id=model.id) == model
assert (model.source_id, model.query_type) == (source.id, "raw_sql"), model
assert destination.syncs == model.syncs == [str(n) for n in sorted(stage.SYNCS.values())], model

# A sync that never ran: levin says null, as it is documented, and this client reads that as a moment.
assert stage.ask(f"/syncs/{stage.SYNCS['never']}")["lastRunAt"] is None
raised(TypeError, lambda: get_sync.sync(client=client, sync_id=str(stage.SYNCS["never"])))

# What is refused.
trigger = lambda of, number: trigger_run.sync(client=of, sync_id=number, json_body=TriggerRunInput())  # noqa: E731
assert "404" in raised(httpx.HTTPStatusError, trigger, client, "4711")
assert "409" in raised(httpx.HTTPStatusError, trigger, client, str(stage.SYNCS["resting"]))
assert "401" in raised(httpx.HTTPStatusError, trigger, LevinCredentials(token="not-a-key").get_client(), number)
assert "403" in raised(
    httpx.HTTPStatusError, trigger, LevinCredentials(token=os.environ["LEVIN_READ_KEY"]).get_client(), number)

# This client speaks of numbers as floats, which write 7 as `7.0`.
good = float(stage.SYNCS["good"])
assert list_sync_runs.sync(client=client, sync_id=good, run_id=float(asked.id), limit=1.0).data == [run]
assert get_model.sync(client=client, model_id=float(model.id)) == model
