"""Deployments on a real database and with a real worker child: each step, what each refuses, and who may interfere."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import psutil
import pytest
from audited import at_once
from deploying import ELSEWHERE, GOLDEN_ROW, House, classifier, frame, regression
from sqlalchemy import Engine

from db import deployment_steps, deployments, jobs, labels, samples
from db.engine import transaction
from errors import Conflict, Fenced
from settings import Settings, get_settings
from worker import host


@pytest.fixture
def house(
    engine: Engine, database_url: str, servers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", servers.broker_url)
    get_settings.cache_clear()
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        drain_seconds=0.05,
        lease_seconds=30,
        deploy_timeout_seconds=2.0,
    )
    house = House(engine, settings, tmp_path)
    house.register("1.0.0", classifier())
    house.register("2.0.0", classifier(0.01))
    yield house
    house.close()
    get_settings.cache_clear()


@pytest.fixture
def live(house: House) -> House:
    """1.0.0 is in production."""
    house.ask("1.0.0")
    assert house.run() == "m@1.0.0: live"
    return house


def test_a_version_goes_live_step_by_step_and_the_slots_take_turns(house: House) -> None:
    first = house.ask("1.0.0")
    assert house.aliases() == {}
    assert house.run() == "m@1.0.0: live"
    assert house.aliases() == {"production": "1.0.0"}
    assert house.slots() == ("blue", {"blue": "1.0.0", "green": None})
    assert [state for state, _ in house.messages(first)] == [
        "warming",
        "validating",
        "validating",
        "validating",
        "live",
    ]

    second = house.ask("2.0.0", by="cat")
    assert house.slots() == ("blue", {"blue": "1.0.0", "green": "2.0.0"})
    house.run()
    assert house.aliases() == {"production": "2.0.0", "previous": "1.0.0"}
    assert house.slots() == ("green", {"blue": "1.0.0", "green": "2.0.0"})
    row = house.row(second)
    assert (row.state, row.slot, row.by, row.reasons) == ("live", "green", "cat", [])
    assert row.from_version_id == house.version("1.0.0").id
    assert row.checks["warm_up"] == {"workers": 1, "warm": 1, "waiting": [], "over": True}
    assert row.checks["validation"]["rows"] == 50
    assert house.child.cache.holds(house.version("1.0.0").id), "the previous version stays loaded"
    assert house.child.cache.holds(house.version("2.0.0").id)

    house.register("3.0.0", classifier(0.02))
    house.ask("3.0.0")
    house.run()
    assert house.slots() == ("blue", {"blue": "3.0.0", "green": "2.0.0"})


def test_one_worker_that_refuses_is_enough(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.neighbour(**{str(deployment_id): "refused"})
    assert "failed" in live.run()
    row = live.row(deployment_id)
    assert row.reasons == [f"worker {ELSEWHERE} refuses: {GOLDEN_ROW}"]
    assert live.aliases() == {"production": "1.0.0"}
    assert live.messages(deployment_id)[-1] == ("failed", row.reasons[0])
    assert live.slots() == ("blue", {"blue": "1.0.0", "green": None})


def test_golden_rows_that_differ_are_refused_and_tried_again_when_they_are_mended(live: House) -> None:
    golden = live.version("2.0.0").golden
    spoil = "UPDATE model_version SET golden = jsonb_set(golden, '{6,prediction}', '7') WHERE version = '2.0.0'"
    live.query(spoil)
    deployment_id = live.ask("2.0.0")
    live.run()
    (reason,) = live.row(deployment_id).reasons
    assert "refuses: golden row 7 (" in reason
    assert "instead of 7" in reason
    assert live.aliases() == {"production": "1.0.0"}

    assert golden is not None
    mend = "UPDATE model_version SET golden = jsonb_set(golden, '{6,prediction}', CAST(:label AS jsonb))"
    live.query(mend + " WHERE version = '2.0.0'", label=str(golden[6]["prediction"]))
    live.ask("2.0.0")
    assert live.run() == "m@2.0.0: live"


def test_a_refusal_of_before_is_no_answer_to_a_new_deployment(live: House, monkeypatch: pytest.MonkeyPatch) -> None:
    live.query("UPDATE model_version SET golden = jsonb_set(golden, '{6,prediction}', '7') WHERE version = '2.0.0'")
    live.ask("2.0.0")
    live.run()
    deployment_id = live.ask("2.0.0")
    told: list[Any] = []
    warm = live.child.cache.warm

    def look_and_warm(wanted: Any) -> None:
        told.extend(row.deployments for row in live.query("SELECT deployments FROM worker_heartbeat"))
        warm(wanted)

    monkeypatch.setattr(live.child.cache, "warm", look_and_warm)
    live.beat()
    assert told == [{str(deployment_id): {"state": "loading"}}]


def test_a_flipped_byte_is_refused_and_production_stays(live: House) -> None:
    digest = live.version("2.0.0").digest.removeprefix("sha256:")
    stored = live.folder / "artefacts" / "sha256" / digest[:2] / digest
    content = bytearray(stored.read_bytes())
    content[100] ^= 1
    stored.write_bytes(content)
    deployment_id = live.ask("2.0.0")
    live.run()
    assert "was changed or damaged" in live.row(deployment_id).reasons[0]
    assert live.aliases() == {"production": "1.0.0"}


def test_a_worker_that_does_not_answer_is_named_when_the_time_is_over(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.neighbour()
    live.until(lambda row: row.checks.get("warm_up", {}).get("warm") == 1, deployment_id)
    assert live.row(deployment_id).checks["warm_up"]["waiting"] == [ELSEWHERE]
    live.run()
    assert live.row(deployment_id).reasons == [f"worker {ELSEWHERE} has not loaded it within 2 s"]
    assert live.aliases() == {"production": "1.0.0"}


def test_a_worker_that_died_no_longer_counts(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.neighbour()
    live.until(lambda row: "warm_up" in row.checks, deployment_id)
    live.query("DELETE FROM worker_heartbeat WHERE owner = :owner", owner=ELSEWHERE)
    assert live.run() == "m@2.0.0: live"


def test_a_version_that_ends_its_worker_while_it_is_loaded_is_given_up(live: House) -> None:
    """Each child that took its place would end like it, and production with it."""
    deployment_id = live.ask("2.0.0")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    victim = host.owner(process.pid, psutil.Process(process.pid).create_time())
    live.neighbour(victim, **{str(deployment_id): "loading"})
    live.beat()
    assert live.row(deployment_id).state == "warming", "it still lives"
    process.communicate(b"\n")
    live.beat()
    assert live.row(deployment_id).reasons == [f"worker {victim} ended while it loaded it"]
    assert live.aliases() == {"production": "1.0.0"}


def test_a_worker_that_was_started_in_the_meantime_counts(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.until(lambda row: "validation" in row.checks, deployment_id)
    live.neighbour()
    live.until(lambda row: row.checks["validation"]["over"], deployment_id)
    live.advance()
    assert live.row(deployment_id).state == "validating", "the new worker has not loaded it"
    live.neighbour(**{str(deployment_id): "warm"})
    assert live.run() == "m@2.0.0: live"


def test_nobody_lives(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.query("DELETE FROM worker_heartbeat")
    with transaction(live.engine) as connection:
        deployments.expire(connection, 60)
    assert live.row(deployment_id).state == "warming"
    live.query("UPDATE deployment SET moved_at = now() - interval '61 seconds' WHERE id = :id", id=deployment_id)
    with transaction(live.engine) as connection:
        deployments.expire(connection, 60)
    assert "no worker took it further for 60 s" in live.row(deployment_id).reasons[0]
    live.ask("2.0.0")
    live.query("UPDATE deployment SET moved_at = now() - interval '1 minute'")
    assert live.advance() == "m@2.0.0: failed: no worker lived for 2 s; start one with `scorehouse worker`"


def test_what_the_queue_scores_otherwise_does_not_go_live(live: House) -> None:
    """Each worker's own check came out: only the job through the queue shows it."""
    deployment_id = live.ask("2.0.0")
    live.beat()
    live.query(
        "UPDATE model_version SET golden = jsonb_set(golden, '{2,probabilities}', '[0.25, 0.75]') "
        "WHERE version = '2.0.0'"
    )
    live.run()
    (reason,) = live.row(deployment_id).reasons
    assert reason.startswith("golden row 3 (")
    assert "has a probability that is off by" in reason
    assert live.aliases() == {"production": "1.0.0"}


def test_a_validation_that_nobody_scores_fails_in_time(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.beat()
    while live.row(deployment_id).state != "failed":
        live.advance()
    assert "was not scored within 2 s" in live.row(deployment_id).reasons[0]


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_a_regression_is_validated_too(house: House, factor: float) -> None:
    house.register("1.0.0", regression(factor), name="r")
    house.ask("1.0.0", name="r")
    assert house.run() == "r@1.0.0: live"


def test_the_validation_is_in_nobodys_statistics_and_lists(live: House) -> None:
    live.ask("2.0.0")
    live.run()
    assert live.query("SELECT count(*) FROM prediction")[0][0] == 100
    assert live.query("SELECT count(*) FROM chunk_profile")[0][0] == 0
    assert live.query("SELECT count(*) FROM prediction_block WHERE record_keys IS NOT NULL")[0][0] == 0
    with transaction(live.engine) as connection:
        assert jobs.page(connection, "default", state=None, model_name=None, after=None, limit=9) == []
    live.submit(frame(20))
    assert live.query("SELECT sum(rows) FROM chunk_profile")[0][0] == 20
    version = live.version("2.0.0").id
    model_id, today = live.query("SELECT model_id, now()::date FROM model_version WHERE id = :id", id=version)[0]
    labelled: list[bytes] = []
    now = live.query("SELECT now() AS now")[0].now
    with transaction(live.engine) as connection:
        labels.export_labelled(connection, model_id, version, today, labelled.append)
        sampled = samples.chunks_between(
            connection, version, now - timedelta(days=1), now + timedelta(days=1), rows=99, seed=1
        )
    assert b"".join(labelled).count(b"\n") == 20
    assert len(sampled) == 1


def test_two_at_once_one_wins_and_the_other_is_told_of_it(live: House) -> None:
    live.register("3.0.0", classifier(0.02))

    def ask(version: str) -> UUID | Conflict:
        try:
            return live.ask(version, by=version)
        except Conflict as exc:
            return exc

    found = at_once(lambda: ask("2.0.0"), lambda: ask("3.0.0"))
    (lost,) = [each for each in found if isinstance(each, Conflict)]
    (won,) = [each for each in found if isinstance(each, UUID)]
    winner = live.row(won).by
    assert str(lost) == f"deployment {won} of version {winner} by {winner} is under way: wait for it or cancel it"
    assert live.run() == f"m@{winner}: live"
    assert live.aliases() == {"production": winner, "previous": "1.0.0"}


def test_a_worker_that_died_is_followed_by_another_one_and_cannot_interfere(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.neighbour(**{str(deployment_id): "warm"})
    with transaction(live.engine) as connection:
        stale = deployment_steps.claim(connection, owner=ELSEWHERE, lease_seconds=60)
    assert stale is not None
    assert live.advance() is None, "it is in the hands of a worker that lives"
    live.query("DELETE FROM worker_heartbeat WHERE owner = :owner", owner=ELSEWHERE)
    live.until(lambda row: row.state == "validating", deployment_id)
    for late in (
        lambda: deployment_steps.record(connection, stale, state="validating", by="late", lease_seconds=60),
        lambda: deployment_steps.go_live(connection, stale, by="late"),
    ):
        with pytest.raises(Fenced), transaction(live.engine) as connection:
            late()
    with transaction(live.engine) as connection:
        assert not deployment_steps.fail(connection, stale, ["late"], by="late")
    assert live.aliases() == {"production": "1.0.0"}
    assert live.run() == "m@2.0.0: live"


def test_one_that_ends_its_workers_is_given_up(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    for _ in range(5):
        with transaction(live.engine) as connection:
            assert deployment_steps.claim(connection, owner="dead", lease_seconds=60)
    live.run()
    assert "5 workers ended while it was warming" in live.row(deployment_id).reasons[0]


def test_a_rollback_goes_back_step_by_step_and_never_forward(live: House) -> None:
    live.register("3.0.0", classifier(0.02))
    for version in ("2.0.0", "3.0.0"):
        live.ask(version)
        live.run()
    live.roll_back()
    assert live.aliases() == {"production": "2.0.0", "previous": "1.0.0"}
    assert live.slots() == ("green", {"blue": "1.0.0", "green": "2.0.0"})
    live.roll_back()
    assert live.aliases() == {"production": "1.0.0"}
    with pytest.raises(Conflict, match="no previous version to go back to"):
        live.roll_back()
    live.ask("3.0.0")
    live.run()
    last = live.roll_back()
    assert live.aliases() == {"production": "1.0.0"}
    assert (live.row(last).kind, live.row(last).state, live.row(last).by) == ("rollback", "live", "bob")


def test_there_and_back_again_is_remembered(live: House) -> None:
    """1 -> 2 -> 1: back to 2, and then to the 1 of the beginning."""
    for version in ("2.0.0", "1.0.0"):
        live.ask(version)
        live.run()
    assert live.aliases() == {"production": "1.0.0", "previous": "2.0.0"}
    live.roll_back()
    assert live.aliases() == {"production": "2.0.0", "previous": "1.0.0"}
    live.roll_back()
    assert live.aliases() == {"production": "1.0.0"}


def test_a_rollback_supersedes_a_deployment_that_is_under_way(live: House) -> None:
    live.ask("2.0.0")
    live.run()
    live.register("3.0.0", classifier(0.02))
    deployment_id = live.ask("3.0.0")
    live.until(lambda row: row.state == "validating", deployment_id)
    live.roll_back()
    assert live.row(deployment_id).reasons == ["superseded by a rollback of bob"]
    assert live.advance() is None
    assert live.aliases() == {"production": "1.0.0"}


def test_a_deployment_is_canceled(live: House) -> None:
    deployment_id = live.ask("2.0.0")
    live.beat()
    live.cancel(deployment_id)
    assert live.row(deployment_id).reasons == ["canceled by ann"]
    with pytest.raises(Conflict, match="is over already"):
        live.cancel(deployment_id)
    assert live.aliases() == {"production": "1.0.0"}
    live.ask("2.0.0")
    assert live.run() == "m@2.0.0: live"


def test_production_is_one_version_whoever_switches(live: House) -> None:
    """A switch and a rollback at the same moment, again and again; whoever looks sees one production version."""
    for _ in range(4):
        deployment_id = live.ask("2.0.0")
        live.until(lambda row: row.checks.get("validation", {}).get("over"), deployment_id)
        at_once(live.advance, lambda: _roll_back_if_possible(live), lambda: _seen(live))
        live.run()
        row = live.row(deployment_id)
        production = live.aliases()["production"]
        assert row.state in {"live", "failed"}
        assert live.query("SELECT count(*) FROM model_alias WHERE alias = 'production'")[0][0] == 1
        if production == "2.0.0":
            live.roll_back()
        assert live.aliases()["production"] == "1.0.0"


def _roll_back_if_possible(live: House) -> None:
    with suppress(Conflict):
        live.roll_back()


def _seen(live: House) -> None:
    for _ in range(50):
        assert live.aliases()["production"] in {"1.0.0", "2.0.0"}


def test_a_rollback_waits_for_a_switch_and_undoes_that(live: House) -> None:
    """And not what it saw before: 2.0.0 comes back, not the 1.0.0 that was the previous one while it waited."""
    live.register("3.0.0", classifier(0.02))
    live.ask("2.0.0")
    live.run()
    live.ask("3.0.0")
    live.beat()
    with ThreadPoolExecutor(1) as pool:
        with transaction(live.engine) as connection:
            open_ = deployment_steps.claim(connection, owner=live.child.owner, lease_seconds=60)
            assert open_ is not None
            deployment_steps.go_live(connection, open_, by="tests")
            rolled_back = pool.submit(live.roll_back)
            while not live.query("SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert not rolled_back.done()
        last = live.row(rolled_back.result(timeout=30))
    assert live.aliases() == {"production": "2.0.0", "previous": "1.0.0"}
    assert (last.from_version_id, last.to_version_id) == (live.version("3.0.0").id, live.version("2.0.0").id)
    assert live.row(open_.id).state == "live"


def test_the_version_in_production_is_checked_again_and_stays(live: House) -> None:
    live.ask("2.0.0")
    live.run()
    again = live.ask("2.0.0")
    assert live.run() == "m@2.0.0: live"
    assert live.aliases() == {"production": "2.0.0", "previous": "1.0.0"}
    assert live.row(again).slot == "green"
    assert live.slots()[0] == "green"
    live.roll_back()
    assert live.aliases() == {"production": "1.0.0"}


GATE = {"replay_rows": 150, "max_flipped": 0.05, "max_psi": 0.2, "max_slowdown": 50.0}


@pytest.mark.parametrize(("format", "rows"), [("csv", 0), ("csv", 40), ("ndjson", 1)])
def test_a_replay_of_the_last_inputs_lets_pass_what_is_alike(live: House, format: str, rows: int) -> None:
    live.submit(frame(60, seed=4), format="csv")
    live.submit(frame(170, seed=5), format=format, rows=rows)
    deployment_id = live.ask("2.0.0", GATE)
    assert live.run() == "m@2.0.0: live"
    replay = live.row(deployment_id).checks["replay"]
    assert (replay["rows"], replay["compared"], replay["not_taken"], replay["skipped"]) == (150, 150, 0, 0)
    assert replay["against"] == "1.0.0"
    assert replay["flipped"] <= 0.02
    assert replay["psi"] == pytest.approx(0, abs=0.05)
    assert "counters" not in replay


def test_a_replay_refuses_what_flips_too_much_with_its_figures(live: House) -> None:
    data = frame(1_000, seed=5)
    live.submit(data)
    live.register("3.0.0", classifier(4.0))
    flipped = int((classifier().predict(data[["a", "b"]]) != classifier(4.0).predict(data[["a", "b"]])).sum())
    deployment_id = live.ask("3.0.0", {**GATE, "replay_rows": 1_500})
    live.run()
    row = live.row(deployment_id)
    assert row.state == "failed"
    assert row.reasons[0].startswith(f"{flipped / 1_000:.2%} of 1,000 replayed rows get another class than from 1.0.0")
    assert any(reason.startswith("the scores of 1,000 replayed rows have a PSI of") for reason in row.reasons)
    assert row.checks["replay"]["flipped"] == pytest.approx(flipped / 1_000, abs=1e-6)
    assert (row.checks["replay"]["rows"], row.checks["replay"]["wanted"]) == (1_000, 1_500)
    assert live.aliases() == {"production": "1.0.0"}


def test_rows_that_the_version_does_not_take_count_as_flipped_and_are_named(live: House) -> None:
    live.submit(frame(50))
    data = frame().assign(c=1.0)
    model = classifier().__class__().fit(data[["a", "b", "c"]], data["y"])
    live.register("3.0.0", model, columns=["a", "b", "c"])
    deployment_id = live.ask("3.0.0", GATE)
    live.run()
    row = live.row(deployment_id)
    assert row.reasons[0].startswith("100.00% of 50 replayed rows get another class than from 1.0.0")
    assert "50 of them it cannot take: 1 column is missing from the header: 'c'" in row.reasons[0]


def test_a_replay_without_anything_to_compare_says_so(live: House) -> None:
    deployment_id = live.ask("2.0.0", GATE)
    live.run()
    row = live.row(deployment_id)
    assert row.state == "live"
    assert "no inputs of 1.0.0 are stored" in row.checks["replay"]["note"]
    assert any("nothing was compared" in message for _, message in live.messages(deployment_id))


def test_a_regression_is_compared_in_standard_deviations(live: House) -> None:
    live.query("DELETE FROM model_alias")
    live.register("4.0.0", regression())
    live.register("5.0.0", regression(1.001))
    live.register("6.0.0", regression(2.0))
    live.ask("4.0.0")
    live.run()
    live.submit(frame(100))
    passed = live.ask("5.0.0", GATE)
    live.run()
    assert live.row(passed).state == "live"
    assert 0 < live.row(passed).checks["replay"]["difference"] < 0.05
    refused = live.ask("6.0.0", GATE)
    live.run()
    assert "standard deviations" in live.row(refused).reasons[0]
    other = live.ask("2.0.0", GATE)
    live.run()
    assert live.row(other).reasons == ["it is a classification, production is a regression: they cannot be compared"]


def test_a_replay_goes_on_where_another_worker_was_killed(live: House) -> None:
    data = frame(2_500, seed=6)
    live.submit(data, rows=2_100)
    live.register("3.0.0", classifier(2.0))
    live.settings = live.settings.model_copy(update={"drain_seconds": 0.0})  # a step for each permit
    gate = {"replay_rows": 2_450, "max_flipped": 1.0, "max_psi": 100.0, "max_slowdown": 50.0}
    deployment_id = live.ask("3.0.0", gate)
    live.until(lambda row: row.checks.get("replay", {}).get("rows"), deployment_id)
    seen = list(itertools.takewhile(lambda n: n < 2_450, _rows_replayed(live, deployment_id)))
    assert seen == [400, 2_400], "the newest chunk first, then as many rows as a piece has"
    live.run()
    row = live.row(deployment_id)
    replayed = pd.concat([data.iloc[2_100:], data.iloc[:2_050]])[["a", "b"]]
    flipped = (classifier().predict(replayed) != classifier(2.0).predict(replayed)).mean()
    assert (row.state, row.checks["replay"]["rows"], row.checks["replay"]["compared"]) == ("live", 2_450, 2_450)
    assert row.checks["replay"]["flipped"] == pytest.approx(flipped, abs=1e-6)


def _rows_replayed(live: House, deployment_id: UUID) -> Iterator[int]:
    """After each permit, which another worker takes each time."""
    for number in range(20):
        row = live.row(deployment_id)
        yield row.checks["replay"]["rows"]
        live.query(
            "UPDATE deployment SET owner = 'dead', lease_until = now() + interval '1 hour' WHERE id = :id", id=row.id
        )
        live.neighbour(f"elsewhere/1:{number}/1.00", **{str(deployment_id): "warm"})
        live.advance(f"elsewhere/1:{number}/1.00")


def test_a_version_that_is_being_deployed_costs_production_nothing(house: House) -> None:
    """A cache of one version: production stays loaded, the other one beside it until it is live."""
    house.child.cache._size = 1
    house.ask("1.0.0")
    house.run()
    deployment_id = house.ask("2.0.0")
    house.beat()
    one, two = house.version("1.0.0").id, house.version("2.0.0").id
    assert (house.child.cache.holds(one), house.child.cache.holds(two)) == (True, True)
    house.run()
    house.beat()
    assert house.row(deployment_id).state == "live"
    assert (house.child.cache.holds(one), house.child.cache.holds(two)) == (False, True)
