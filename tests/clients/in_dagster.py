"""dagster-hightouch: its op and its component, executed by Dagster in this process."""

import os

import dagster as dg
import dagster_hightouch.resources
from dagster_hightouch import ConfigurableHightouchResource, HightouchSyncComponent, hightouch_sync_op

# The only way to another address.
dagster_hightouch.resources.HIGHTOUCH_API_BASE = os.environ["LEVIN_URL"] + "/api/v1/"

import stage  # noqa: E402

hightouch = ConfigurableHightouchResource(api_key=os.environ["LEVIN_KEY"], poll_interval=1.0)


def customers(sync_id):
    """The sync is an asset."""
    return HightouchSyncComponent(sync_id=sync_id, asset=dg.AssetSpec("customers")).build_defs(None)


def materialize(slug):
    """The event of the materialization, or the failure."""
    definitions = customers(str(stage.SYNCS[slug]))
    done = dg.materialize(list(definitions.assets), resources={"hightouch": hightouch}, raise_on_error=False)
    if done.success:
        [event] = done.get_asset_materialization_events()
        return event.materialization
    return failure(done)


def failure(done):
    [event] = done.get_step_failure_events()
    error = event.event_specific_data.error
    return str(error.cause or error) + str(event.event_specific_data.user_failure_data)


def execute(slug, key=stage.KEY, **config):
    """The same by the op, on the older resource."""
    sync = hightouch_sync_op.configured({"sync_id": str(slug), "poll_interval": 0.2, **config}, name="sync")

    @dg.job(resource_defs={"hightouch": dagster_hightouch.resources.ht_resource.configured(
        {"api_key": key, "request_max_retries": 1, "request_retry_delay": 0.05})})
    def job():
        sync()

    done = job.execute_in_process(raise_on_error=False)
    if not done.success:
        return failure(done)
    [event] = [event for event in done.all_node_events if event.is_step_materialization]
    return done.output_for_node("sync"), event.materialization


# A run that delivers.
asset = materialize("good")
[good] = stage.runs("good")
stage.check_end("good", good)
assert asset.metadata["sync_run_details"].value == good, asset
assert asset.metadata["sync_details"].value == stage.ask(f"/syncs/{stage.SYNCS['good']}"), asset
assert asset.metadata["destination_details"].value["slug"] == "crm", asset
figures = {name: asset.metadata[name].value for name in ("total_failed_rows", "query_size", "completion_ratio")}
assert figures == {"total_failed_rows": 0, "query_size": 5, "completion_ratio": 1}, figures

# A warning is well unless the op is told otherwise.
asset = materialize("picky")
assert [asset.metadata[name].value for name in ("total_failed_rows", "failed_adds")] == [1, 1], asset
stage.check_end("picky", stage.runs("picky")[0])
assert "failed with status: warning" in execute(stage.SYNCS["picky"], fail_on_warning=True)

# A failure says why.
said = materialize("closed")
assert "failed with status: failed" in said and "DESTINATION_UNUSABLE" in said, said
stage.check_end("closed", stage.runs("closed")[0])

# Nothing to do.
output, asset = execute(stage.SYNCS["quiet"])
stage.check_end("quiet", output.sync_run_details)
assert asset.asset_key.path[:3] == ["hightouch", "http_request", "crm"], asset
figures = {name: value.value for name, value in asset.metadata.items()}
assert (figures["planned_add"], figures["successful_add"], figures["query_size"]) == (0, 0, 5), figures
assert output.sync_run_details["id"] == stage.runs("quiet")[0]["id"]

# What is refused before a run is there.
refused = "Exceeded max number of retries"
assert refused in execute(4711)
assert refused in execute(stage.SYNCS["good"], key="not-a-key")
assert refused in execute(stage.SYNCS["resting"])
assert len(stage.runs("good")) == 1 and stage.runs("resting") == []
