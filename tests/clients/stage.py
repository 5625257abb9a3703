"""Where levin listens, keys, and the syncs that tests/clients.rs has made: what every script here is told."""

import json
import os
import time
import urllib.request

URL = os.environ["LEVIN_URL"]
KEY = os.environ["LEVIN_KEY"]
# Of each sync its number and how many rows its model has, by slug:
#   good    every row is accepted
#   picky   one row is rejected: its runs end as warnings
#   closed  the destination takes no credentials: its runs fail
#   quiet   everything was accepted before levin was started: its runs have nothing to do
#   slow    its requests are kept back until `release`
#   never   never ran
#   resting is disabled
SYNCS = json.loads(os.environ["LEVIN_SYNCS"])
ROWS = 5
PLANNED = {"good": ROWS, "picky": ROWS, "closed": ROWS, "quiet": 0}
ENDS = {"good": "success", "picky": "warning", "closed": "failed", "quiet": "success"}


def ask(path, key=KEY):
    """What levin itself answers, without a client between."""
    request = urllib.request.Request(f"{URL}/api/v1{path}", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def runs(slug):
    """The runs of a sync, the newest first."""
    return ask(f"/syncs/{SYNCS[slug]}/runs")["data"]


def end(slug):
    """The newest run of a sync, once it has ended."""
    while not (run := runs(slug)[0])["finishedAt"]:
        time.sleep(0.1)
    return run


def release():
    """Lets the requests of `slow` go."""
    urllib.request.urlopen(os.environ["RECEIVER_URL"] + "/release", data=b"{}").close()


def counts(run, which):
    """Added, changed and removed rows of a run, as levin writes it."""
    return [run[which][name] for name in ("addedCount", "changedCount", "removedCount")]


def check_end(slug, run):
    """A run ended as its sync is made for: the first of its sync."""
    planned, failed = PLANNED[slug], {"picky": 1}.get(slug, 0)
    accepted = {"closed": 0}.get(slug, planned - failed)
    assert run["status"] == ENDS[slug], run
    assert counts(run, "plannedRows") == [planned, 0, 0], run
    assert counts(run, "successfulRows") == [accepted, 0, 0], run
    assert counts(run, "failedRows") == [failed, 0, 0], run
    assert run["querySize"] == ROWS, run
    assert run["createdAt"] <= run["startedAt"] <= run["finishedAt"], run
    assert (run["error"] is None) == (ENDS[slug] != "failed"), run
    assert run["completionRatio"] == (0 if slug == "closed" else 1), run


def connection(key):
    """A connection of Airflow to levin."""
    return json.dumps({"conn_type": "http", "host": URL, "password": key})
