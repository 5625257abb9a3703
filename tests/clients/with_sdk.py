"""The SDK `hightouch`: every operation it has."""

import os
import time

import hightouch
from hightouch.models import operations, shared

sdk = hightouch.Hightouch(server_url=os.environ["LEVIN_URL"] + "/api/v1")
bearer = "Bearer " + os.environ["LEVIN_KEY"]


def follow(sync_id, start=None):
    """Triggers a sync and waits for the run's end."""
    asked = sdk.trigger_run(
        operations.TriggerRunRequest(sync_id=str(sync_id), trigger_run_input=start),
        operations.TriggerRunSecurity(bearer_auth=bearer),
    ).trigger_run_output
    while True:
        [run] = sdk.list_sync_runs(
            operations.ListSyncRunsRequest(sync_id=sync_id, run_id=int(asked.id)),
            operations.ListSyncRunsSecurity(bearer_auth=bearer),
        ).list_sync_runs_200_application_json_object.data
        if run.finished_at:
            return run
        time.sleep(0.5)


import stage  # noqa: E402

Ends = shared.SyncRunStatus


def call(operation, request, key=bearer):
    """An operation of the SDK, by its name."""
    name = "".join(word.title() for word in operation.split("_"))
    return getattr(sdk, operation)(request, getattr(operations, f"{name}Security")(bearer_auth=key))


def listed(kind, **query):
    answer = call(f"list_{kind}", getattr(operations, f"List{kind.title()}Request")(**query))
    assert answer.status_code == 200, answer.raw_response.text
    return getattr(answer, f"list_{kind}_200_application_json_object").data


def get(kind, number):
    answer = call(f"get_{kind}", getattr(operations, f"Get{kind.title()}Request")(**{f"{kind}_id": number}))
    return getattr(answer, kind)


# The four ends.
for slug, end in stage.ENDS.items():
    run = follow(stage.SYNCS[slug])
    [written] = [found for found in stage.runs(slug) if found["id"] == int(run.id)]
    stage.check_end(slug, written)
    assert run.status == Ends(end), run
    assert run.planned_rows.added_count == stage.PLANNED[slug] and run.query_size == 5, run
    assert run.failed_rows.added_count == (1 if slug == "picky" else 0), run
    assert (run.error is not None) == (end == "failed"), run
    assert run.created_at <= run.started_at <= run.finished_at, run
    assert get("sync", stage.SYNCS[slug]).status == shared.SyncStatus(end)
assert "DESTINATION_UNUSABLE" in stage.runs("closed")[0]["error"]

# From where a run starts.
assert follow(stage.SYNCS["good"]).planned_rows.added_count == 0
assert follow(stage.SYNCS["good"], shared.TriggerRunInput(full_resync=True)).successful_rows.added_count == 5

# By slug, by number as text.
for named in ({"sync_slug": "quiet"}, {"sync_id": str(stage.SYNCS["quiet"])}):
    answer = call("trigger_run_custom", shared.TriggerRunCustomInput(**named))
    asked = answer.trigger_run_custom_200_application_json_any_of["id"]
    assert isinstance(asked, str) and asked.isdigit(), asked
    assert int(asked) in [run["id"] for run in stage.runs("quiet")], "a run is there before the answer"
    stage.end("quiet")

# Lists, pages, orders, and each object by its number.
assert [sync.slug for sync in listed("sync", order_by=operations.ListSyncOrderBy.SLUG)] == sorted(stage.SYNCS)
pages = [listed("sync", limit=3, offset=of, order_by=operations.ListSyncOrderBy.SLUG) for of in (0, 3, 6, 9)]
assert [[sync.slug for sync in page] for page in pages] == [
    ["closed", "good", "never"], ["picky", "quiet", "resting"], ["slow"], []]
for kind in ("source", "model", "destination", "sync"):
    for found in listed(kind):
        assert isinstance(found.id, int) and get(kind, found.id) == found, found
        assert found.created_at <= found.updated_at, found
        [same] = listed(kind, slug=found.slug)
        assert same == found
    assert listed(kind, slug="nowhere") == []
    assert call(f"get_{kind}", getattr(operations, f"Get{kind.title()}Request")(**{f"{kind}_id": 4711})).status_code == 404
[source], [model], [destination] = listed("source"), listed("model"), listed("destination")
assert (source.slug, source.type) == ("wh", "postgres") and "url" in source.configuration, source
assert (model.source_id, model.primary_key, model.query_type) == (source.id, "id", "raw_sql"), model
assert model.raw.sql == "select id, name, email from customers", model
assert (destination.slug, destination.type) == ("crm", "http_request"), destination
assert sorted(destination.syncs) == sorted(model.syncs) == sorted(stage.SYNCS.values()), destination
never = get("sync", stage.SYNCS["never"])
assert (never.status, never.last_run_at, never.schedule) == (shared.SyncStatus.PENDING, None, None), never
assert (never.model_id, never.destination_id, never.primary_key) == (model.id, destination.id, "id"), never
resting = get("sync", stage.SYNCS["resting"])
assert resting.disabled and resting.status == shared.SyncStatus.DISABLED, resting

# By the time of their last runs.
[good] = [sync for sync in listed("sync") if sync.slug == "good"]
after = {sync.slug for sync in listed("sync", after=good.last_run_at)}
assert "quiet" in after and not after & {"good", "never", "resting", "slow"}, after

# What is refused.
answer = call("trigger_run", operations.TriggerRunRequest(sync_id="4711"))
assert answer.status_code == 404, answer.raw_response.text
answer = call("trigger_run_custom", shared.TriggerRunCustomInput())
assert answer.status_code == 422 and answer.validate_error_json.details, answer.raw_response.text
answer = call("trigger_run", operations.TriggerRunRequest(sync_id=str(stage.SYNCS["resting"])))
assert answer.status_code == 409, answer.raw_response.text
for key, status in ("Bearer not-a-key", 401), ("Bearer " + os.environ["LEVIN_READ_KEY"], 403):
    answer = call("trigger_run", operations.TriggerRunRequest(sync_id=str(stage.SYNCS["good"])), key=key)
    assert answer.status_code == status, answer.raw_response.text
assert call("list_sync", operations.ListSyncRequest(), key="Bearer not-a-key").raw_response.json() == {
    "message": "Authentication error", "details": "Invalid API key"}

# What is made through the SDK runs; what is changed through it, too.
def write(operation, request):
    """The object that a create or an update answers with."""
    answer = call(operation, request)
    assert answer.status_code == 200, answer.raw_response.text
    return getattr(answer, f"{operation}_200_application_json_any_of")


def update(kind, number, **changes):
    """Changes what is named, and nothing else."""
    patch = getattr(shared, f"{kind.title()}Update")(**changes)
    request = getattr(operations, f"Update{kind.title()}Request")(**{f"{kind}_id": number, f"{kind}_update": patch})
    return write(f"update_{kind}", request)


made = write("create_source", shared.SourceCreate(
    name="Copy", slug="copy", type="postgres", configuration={"url": "${WAREHOUSE_URL}", "planner_schema": "copy_planner"}))
assert (made["slug"], made["type"], made["configuration"]["url"]) == ("copy", "postgres", "${WAREHOUSE_URL}"), made
copy = made["id"]
made = write("create_destination", shared.DestinationCreate(
    name="Other", slug="other", type="http_request",
    configuration={"base_url": os.environ["RECEIVER_URL"], "allow_private_networks": True}))
other = made["id"]
made = write("create_model", shared.ModelCreate(
    name="Few", slug="few", query_type="raw_sql", source_id=str(copy), is_schema=False, primary_key="id",
    raw=shared.ModelCreateRaw(sql="select id, name from customers where id <= 2")))
assert (made["sourceId"], made["queryType"], made["raw"]) == (
    copy, "raw_sql", {"sql": "select id, name from customers where id <= 2"}), made
few = made["id"]
made = write("create_sync", shared.SyncCreate(
    slug="few-to-other", model_id=str(few), destination_id=str(other), disabled=False, schedule=None,
    configuration={"mode": "upsert", "each": {"method": "POST", "path": "/few"},
                   "mappings": [{"from": "name", "to": "full_name", "type": "standard"}]}))
few_sync = made["id"]
assert (made["modelId"], made["destinationId"], made["disabled"]) == (few, other, False), made
assert made["configuration"]["mappings"] == [{"from": "name", "to": "full_name", "type": "standard"}], made
assert (made["schedule"], made["lastRunAt"], made["status"]) == (None, None, "pending"), made
assert get("model", few).syncs == [few_sync] and get("destination", other).syncs == [few_sync]
run = follow(few_sync)
assert (run.status, run.successful_rows.added_count) == (Ends.SUCCESS, 2), run

update("model", few, raw=shared.ModelUpdateRaw(sql="select id, name from customers where id between 2 and 4"))
run = follow(few_sync)
assert (run.planned_rows.added_count, run.planned_rows.removed_count, run.query_size) == (2, 0, 3), run
rare = shared.CronSchedule(expression="0 9 29 2 *")
made = update("sync", few_sync, schedule=shared.SyncUpdateSchedule(type="cron", schedule=rare.to_dict()))
assert made["schedule"]["schedule"]["expression"] == "0 9 29 2 *" and made["configuration"]["mappings"], made
made = update("sync", few_sync, configuration={"mode": "mirror", "removed": {"method": "DELETE", "path": "/few"}})
assert made["configuration"]["mode"] == "mirror" and made["configuration"]["mappings"], made
assert update("destination", other, configuration={"concurrency": 1})["configuration"]["concurrency"] == 1
assert update("source", copy, configuration={"audit_schema": "copy_audit"})["configuration"]["audit_schema"] == "copy_audit"
hourly = shared.IntervalSchedule(shared.Interval(quantity=1.0, unit=shared.IntervalUnit.HOUR))
made = update("sync", few_sync, disabled=True, schedule=shared.SyncUpdateSchedule(type="interval", schedule=hourly.to_dict()))
assert made["status"] == "disabled", made
assert made["schedule"] == {"type": "interval", "schedule": {"interval": {"unit": "hour", "quantity": 1}}}, made
assert call("trigger_run", operations.TriggerRunRequest(sync_id=str(few_sync))).status_code == 409
made = update("sync", few_sync, disabled=False, schedule=shared.SyncUpdateSchedule(type="manual", schedule={}))
assert (made["status"], made["schedule"]) == ("success", None), made

# What cannot be made says so, in the form that the SDK reads, and changes nothing.
for operation, request, status in (
    ("create_source", shared.SourceCreate(name="Copy", slug="copy", type="postgres", configuration={"url": "u"}), 409),
    ("create_source", shared.SourceCreate(name="a", slug="a", type="abacus", configuration={}), 422),
    ("create_destination", shared.DestinationCreate(name="b", slug="b", type="http_request", configuration={}), 422),
    ("create_model", shared.ModelCreate(
        name="c", slug="c", query_type="raw_sql", source_id="4711", is_schema=False, primary_key="id",
        raw=shared.ModelCreateRaw(sql="select 1 as id")), 422),
    ("update_model", operations.UpdateModelRequest(
        model_id=few, model_update=shared.ModelUpdate(raw=shared.ModelUpdateRaw(sql="drop table customers"))), 422),
):
    answer = call(operation, request)
    assert answer.status_code == status, answer.raw_response.text
    assert answer.validate_error_json.message.value == "Validation failed", answer.raw_response.text
    assert answer.validate_error_json.details, answer.raw_response.text
assert [source.slug for source in listed("source")] == ["wh", "copy"] and len(listed("model")) == 2

# The SDK speaks of numbers as floats, which write 7 as `7.0`.
good = float(stage.SYNCS["good"])
assert get("sync", good).id == good
[run, *_] = listed_runs = call(
    "list_sync_runs", operations.ListSyncRunsRequest(sync_id=good, limit=1.0, within=60.0)
).list_sync_runs_200_application_json_object.data
assert len(listed_runs) == 1 and len(listed("sync", limit=2.0, offset=0.0, model_id=float(model.id))) == 2
