"""Labels: in any order, more than once, before their predictions and beside each other; and the days that they change."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa
from audited import OUTPUT, Audited, at_once, keyed, register
from sklearn.metrics import log_loss
from sqlalchemy import Engine

from db import audits, labels
from db.audits import Policy, Request
from db.engine import transaction
from db.ids import uuid7
from db.labels import Counts, NewLabel, Staging
from db.tables import job, outcome_window, prediction_block
from db.tables import label as label_table
from monitoring import audit, labelled, rollup
from monitoring.accuracy import metrics
from monitoring.outcomes import from_json

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)


@pytest.fixture
def version(engine: Engine) -> Audited:
    return register(engine)


def moment(minute: int) -> datetime:
    return DAY + timedelta(minutes=minute)


def count(version: Audited) -> int:
    """Count the dirty days; returns how many."""
    return labelled.count_dirty_days(version.engine, version.model_id, version.version_id, OUTPUT)


def days(version: Audited) -> dict[date, tuple[int, int, int]]:
    """By day that was counted: rows scored, labelled, and labelled 1 as they were predicted."""
    with transaction(version.engine) as connection:
        rows = labels.counted(connection, version.version_id, date(2000, 1, 1), date(2100, 1, 1))
    return {row.day: (row.scored, row.labelled, row.outcomes["confusion"][1][1]) for row in rows}


def stored(version: Audited) -> list[str]:
    with transaction(version.engine) as connection:
        query = sa.select(label_table.c.label).where(label_table.c.model_id == version.model_id)
        return sorted(connection.execute(query).scalars())


def own(job_id: UUID, row: int, label: str = "1", observed_at: datetime | None = None) -> NewLabel:
    return NewLabel(label, observed_at, job_id=job_id, row=row)


def set_horizon(version: Audited, days: int | None) -> None:
    with transaction(version.engine) as connection:
        wanted = Policy(horizon_days=days, negative_label=None if days is None else "0")
        audits.set_policy(connection, version.model_id, wanted)


# ---- which label counts


@pytest.mark.parametrize("together", [True, False], ids=["one upload", "three"])
def test_the_newest_observation_wins_in_any_order(version: Audited, together: bool) -> None:
    """Of a key and of a prediction, in each order of three."""
    orders = list(itertools.permutations(range(3)))
    job_id = uuid7()
    for place, order in enumerate(orders):
        for target in ({"record_key": f"k{place}"}, {"job_id": job_id, "row": place + 1}):
            given = [NewLabel(f"{minute}", moment(minute), **target) for minute in order]  # type: ignore[arg-type]  # one of the two
            counts = [version.label(*given)] if together else [version.label(item) for item in given]
            newest = [item == max(order[: place + 1]) for place, item in enumerate(order)]
            assert sum(each.received for each in counts) == 3
            assert sum(each.stale for each in counts) == (2 if together else newest.count(False))
            assert sum(each.replaced for each in counts) == (0 if together else newest.count(True) - 1)
    assert stored(version) == ["2"] * 2 * len(orders)


def test_of_one_time_the_later_received_wins(version: Audited) -> None:
    version.label(*keyed([1], "0", DAY), *keyed([1], "1", DAY))
    assert stored(version) == ["1"]
    version.label(*keyed([1], "0", DAY))
    assert stored(version) == ["0"]


def test_the_same_upload_again_changes_nothing(version: Audited) -> None:
    version.score(10, as_of=DAY)
    rollup.roll_up(version.engine)
    given = keyed(range(1, 11), "1", DAY)
    assert version.label(*given) == Counts(received=10, matched=10, unmatched=0, replaced=0, stale=0)
    count(version)
    before = days(version)
    assert version.label(*given) == Counts(received=10, matched=10, unmatched=0, replaced=10, stale=0)
    count(version)
    assert days(version) == before == {DAY.date(): (10, 10, 10)}


def test_uploads_at_once_of_the_same_keys_leave_the_newest(version: Audited) -> None:
    version.score(80, as_of=DAY)

    def upload(minute: int) -> Counts:
        numbers = list(range(1, 81)) if minute % 2 else list(range(80, 0, -1))
        return version.label(*keyed(numbers, str(minute % 2), moment(minute)))

    found = at_once(*[lambda minute=minute: upload(minute) for minute in (3, 2, 0, 1)])
    assert [each.matched for each in found] == [80] * 4
    assert stored(version) == ["1"] * 80


def test_a_label_of_a_prediction_is_for_it_alone_and_before_that_of_its_key(version: Audited) -> None:
    first, second = version.score(3, as_of=DAY), version.score(3, as_of=DAY)
    assert version.label(*keyed([2], "0", moment(9))).matched == 1
    assert version.label(own(first, 2, "1", moment(1))).matched == 1
    assert version.label(own(first, 4)).unmatched == 1
    count(version)
    assert days(version) == {DAY.date(): (6, 2, 1)}
    with transaction(version.engine) as connection:
        found = [labels.of_prediction(connection, version.model_id, job_id, 2, "k2") for job_id in (first, second)]
        assert [row.label for row in found if row] == ["1", "0"]
        assert labels.of_prediction(connection, version.model_id, second, 3, "k3") is None


def test_a_prediction_without_a_key_has_no_label_of_another(version: Audited) -> None:
    first = version.score(3)
    version.label(own(first, 2))
    with transaction(version.engine) as connection:
        assert labels.of_prediction(connection, version.model_id, first, 3, None) is None


def test_another_tenants_prediction_is_neither_matched_nor_counted_nor_blocked(
    engine: Engine, version: Audited
) -> None:
    other = register(engine, tenant="other")
    job_id = version.score(3, as_of=DAY)
    rollup.roll_up(engine)
    assert other.label(own(job_id, 1, "0", moment(9))) == Counts(1, 0, 1, 0, 0)
    assert (version.dirty(), other.dirty()) == ([], [])
    assert version.label(own(job_id, 2)).matched == 1
    count(version)
    assert days(version) == {DAY.date(): (3, 1, 1)}, "the other tenant's label of row 1 is none of ours"
    assert version.label(own(job_id, 1, "1", moment(1))) == Counts(1, 1, 0, 0, 0)
    count(version)
    assert days(version) == {DAY.date(): (3, 2, 2)}


def test_rows_that_errored_and_rows_of_later_chunks_have_their_own_numbers(version: Audited) -> None:
    job_id = version.receive(5, 5, as_of=DAY)
    version.finish_one(errored=2)
    version.finish_one(errored=1)
    counts = version.label(*(own(job_id, row, "1" if row in (3, 7) else "0") for row in range(1, 12)))
    assert (counts.matched, counts.unmatched) == (7, 4)  # rows 1, 2, 6 errored and there is no 11
    count(version)
    assert days(version) == {DAY.date(): (7, 7, 2)}


# ---- keys, few and many


@pytest.mark.parametrize("few", [0, 1000], ids=["by blocks", "one by one"])
def test_few_keys_and_many_are_found_alike(version: Audited, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small blocks, in such with a filter, in both, in several days, twice in one upload, and nowhere."""
    monkeypatch.setattr(labels, "_FEW_KEYS", few)
    version.score(10, as_of=DAY)
    version.score(3, 200, first_row=8, as_of=NEXT)
    version.score(10, first_row=500, as_of=NEXT + timedelta(days=1))
    register(version.engine, name="other").score(10, first_row=700)
    rollup.roll_up(version.engine)
    counts = version.label(*keyed([1, 9, 11, 150, 150, 210, 211, 499, 700]))
    assert counts == Counts(received=9, matched=5, unmatched=3, replaced=0, stale=1)
    assert version.dirty() == ["2026-03-01", "2026-03-02"]
    count(version)
    assert days(version) == {DAY.date(): (10, 2, 2), NEXT.date(): (203, 4, 4)}


def test_more_than_fifty_keys_take_the_other_way_and_count_the_same(
    version: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    version.score(40, 100, as_of=DAY)
    version.score(2, as_of=NEXT)
    taken: list[str] = []
    statement = labels.statement
    monkeypatch.setattr(labels, "statement", lambda name: taken.append(name) or statement(name))
    whole = version.label(*keyed(range(1, 52)))
    parts = [version.label(*keyed(range(low, high))) for low, high in ((1, 51), (51, 52))]
    assert (
        (whole.matched, whole.unmatched) == (sum(p.matched for p in parts), sum(p.unmatched for p in parts)) == (51, 0)
    )
    assert taken.count("find_many_keys") == 1
    assert taken.count("find_key") == 51
    count(version)
    assert days(version) == {DAY.date(): (140, 51, 51), NEXT.date(): (2, 2, 2)}


# ---- labels that wait


@pytest.mark.parametrize("by", ["key", "prediction"])
def test_labels_that_came_first_are_counted_when_their_predictions_come(version: Audited, by: str) -> None:
    job_id = version.receive(4, as_of=DAY)
    given = keyed([1, 2]) if by == "key" else [own(job_id, 1), own(job_id, 2)]
    assert version.label(*given) == Counts(received=2, matched=0, unmatched=2, replaced=0, stale=0)
    assert version.dirty() == []
    version.finish_one()
    rollup.roll_up(version.engine)
    assert version.dirty() == ["2026-03-01"]
    count(version)
    assert days(version) == {DAY.date(): (4, 2, 2)}
    assert version.label(*given).matched == 2


def test_an_upload_that_is_being_received_is_not_labelled_yet(version: Audited) -> None:
    job_id = version.receive(4, as_of=DAY, seal=False)
    version.finish_one()
    assert version.label(*keyed([1]), own(job_id, 2)).matched == 0
    rollup.roll_up(version.engine)
    assert version.dirty() == []
    with transaction(version.engine) as connection:
        version.seal(connection, job_id, 4)
    rollup.roll_up(version.engine)
    count(version)
    assert days(version) == {DAY.date(): (4, 2, 2)}


def test_the_first_labels_and_a_roll_up_that_cross_each_other_miss_no_day(version: Audited) -> None:
    """The upload looked before the rows were scored; the roll-up looks before the upload is committed."""
    version.receive(4, as_of=DAY)
    with transaction(version.engine) as connection:
        staging = Staging(connection)
        staging.add(keyed([1]))
        assert staging.store(version.tenant, version.model_id, [version.version_id]).matched == 0
        version.finish_one()
        rollup.roll_up(version.engine)
    assert version.dirty() == ["2026-03-01"]


def test_a_model_without_labels_has_nothing_to_count(version: Audited) -> None:
    version.score(4, as_of=DAY)
    rollup.roll_up(version.engine)
    assert version.dirty() == []


# ---- dirty days


def read_days(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The days that are read from here on."""
    found: list[str] = []
    export = labels.export_labelled

    def spy(*arguments: Any) -> None:
        found.append(f"{arguments[3]}")
        export(*arguments)

    monkeypatch.setattr(labels, "export_labelled", spy)
    return found


def test_only_days_that_changed_are_read_again(version: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    version.score(4, as_of=DAY)
    version.score(4, first_row=11, as_of=NEXT)
    rollup.roll_up(version.engine)
    version.label(*keyed([1, 11]))
    read = read_days(monkeypatch)
    assert count(version) == 2
    assert count(version) == 0
    version.label(*keyed([12]))
    assert count(version) == 1
    version.score(1, first_row=90, as_of=DAY)
    rollup.roll_up(version.engine)
    assert count(version) == 1
    assert read == ["2026-03-01", "2026-03-02", "2026-03-02", "2026-03-01"]
    assert days(version) == {DAY.date(): (5, 1, 1), NEXT.date(): (4, 2, 2)}


def test_a_count_that_is_killed_is_made_again(version: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    version.score(4, as_of=DAY)
    version.label(*keyed([1]))
    with monkeypatch.context() as patch:
        patch.setattr(labels, "export_labelled", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            count(version)
    assert version.dirty() == ["2026-03-01"]
    assert count(version) == 1
    assert days(version) == {DAY.date(): (4, 1, 1)}


def test_a_label_that_comes_while_its_day_is_counted_is_counted_next(
    version: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    version.score(4, as_of=DAY)
    version.label(*keyed([1]))
    export = labels.export_labelled

    def interrupted(*arguments: Any) -> None:
        export(*arguments)
        version.label(*keyed([2]))  # on a connection of its own, and it does not wait for us

    with monkeypatch.context() as patch:
        patch.setattr(labels, "export_labelled", interrupted)
        count(version)
    assert days(version) == {DAY.date(): (4, 1, 1)}
    assert version.dirty() == ["2026-03-01"]
    count(version)
    assert days(version) == {DAY.date(): (4, 2, 2)}
    assert version.dirty() == []


def test_a_label_that_is_committed_as_a_count_ends_leaves_its_day_dirty(
    version: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count waits for the row that the upload has locked, and then sees that it was marked."""
    version.score(4, as_of=DAY)
    version.label(*keyed([1]))
    exported, marked = threading.Event(), threading.Event()
    export = labels.export_labelled

    def slow(*arguments: Any) -> None:
        export(*arguments)
        exported.set()
        assert marked.wait(10)

    def upload() -> int:
        assert exported.wait(10)
        with transaction(version.engine) as connection:
            staging = Staging(connection)
            staging.add(keyed([2]))
            staging.store(version.tenant, version.model_id, [version.version_id])
            marked.set()
            connection.execute(sa.text("SELECT pg_sleep(0.2)"))
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(labels, "export_labelled", slow)
        at_once(lambda: count(version), upload)
    assert version.dirty() == ["2026-03-01"]
    count(version)
    assert days(version) == {DAY.date(): (4, 2, 2)}


def test_a_slow_count_does_not_overwrite_a_later_one(version: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    version.score(4, as_of=DAY)
    version.label(*keyed([1]))
    export, inner = labels.export_labelled, []

    def overtaken(*arguments: Any) -> None:
        export(*arguments)
        if not inner:
            inner.append(1)
            version.label(*keyed([2]))
            count(version)

    with monkeypatch.context() as patch:
        patch.setattr(labels, "export_labelled", overtaken)
        count(version)
    assert days(version) == {DAY.date(): (4, 2, 2)}


def test_counts_at_once_agree(version: Audited) -> None:
    version.score(100, 40, as_of=DAY)
    version.label(*keyed(range(1, 101)))
    at_once(*[lambda: count(version)] * 3)
    count(version)
    assert days(version) == {DAY.date(): (140, 100, 100)}
    assert version.dirty() == []


# ---- what is gone, and what never comes


def test_predictions_of_a_job_that_is_gone_do_not_match(version: Audited) -> None:
    job_id = version.score(3, as_of=DAY)
    with transaction(version.engine) as connection:
        connection.execute(sa.delete(job).where(job.c.id == job_id))
    assert version.label(own(job_id, 1), *keyed([2])) == Counts(2, 0, 2, 0, 0)
    assert version.dirty() == []


def test_a_day_keeps_its_count_when_retention_removed_its_predictions(version: Audited) -> None:
    gone, kept = version.score(3, as_of=DAY), version.score(2, first_row=10, as_of=DAY)
    version.label(*keyed([1, 2]))
    count(version)
    with transaction(version.engine) as connection:
        connection.execute(sa.delete(prediction_block).where(prediction_block.c.job_id == gone))
        connection.execute(sa.delete(job).where(job.c.id == gone))
    assert version.label(*keyed([10])).matched == 1
    count(version)
    assert days(version) == {DAY.date(): (5, 2, 2)}
    assert version.dirty() == []
    assert version.label(own(kept, 11)).matched == 1


def test_rows_that_stand_for_no_other_time_belong_to_the_day_of_their_score(version: Audited) -> None:
    version.score(3)
    version.score(3, as_of=DAY)
    with transaction(version.engine) as connection:
        at = connection.execute(sa.select(sa.func.max(prediction_block.c.scored_at))).scalar_one()
    version.label(*keyed([1]))
    count(version)
    assert days(version) == {DAY.date(): (3, 1, 1), at.date(): (3, 1, 1)}


def test_no_event_within_the_horizon_is_the_negative_label(version: Audited) -> None:
    now = datetime.now(UTC)
    long_ago, lately = now - timedelta(days=12), now - timedelta(days=2)
    version.score(10, as_of=long_ago)
    version.score(10, as_of=lately)
    rollup.roll_up(version.engine)
    version.label(*keyed([1, 2]))
    count(version)
    assert days(version) == {long_ago.date(): (10, 2, 2), lately.date(): (10, 2, 2)}
    set_horizon(version, 10)
    assert count(version) == 2, "the rule changed, and all days with it"
    assert days(version) == {long_ago.date(): (10, 10, 2), lately.date(): (10, 2, 2)}
    set_horizon(version, 10)
    assert count(version) == 0
    set_horizon(version, None)
    count(version)
    assert days(version) == {long_ago.date(): (10, 2, 2), lately.date(): (10, 2, 2)}


def test_a_day_is_counted_again_when_its_horizon_is_over(version: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of which nobody ever sent a label, and each of them once."""
    now = datetime.now(UTC)
    silent, spoken = now - timedelta(days=12), now - timedelta(days=13)
    set_horizon(version, 10)
    version.score(10, as_of=silent)
    version.score(10, first_row=20, as_of=spoken)
    rollup.roll_up(version.engine)
    version.label(*keyed([20]))
    count(version)
    assert days(version) == {silent.date(): (10, 10, 0), spoken.date(): (10, 10, 1)}
    with transaction(version.engine) as connection:  # as if it had been counted before its horizon was over
        connection.execute(
            sa.update(outcome_window)
            .where(outcome_window.c.day == spoken.date())
            .values(computed_at=now - timedelta(days=5), outcomes=None, labelled=1)
        )
    read = read_days(monkeypatch)
    assert count(version) == 1
    assert count(version) == 0
    assert read == [f"{spoken.date()}"]
    assert days(version)[spoken.date()] == (10, 10, 1)


def test_log_loss_of_three_classes_is_that_of_their_stored_probabilities(version: Audited) -> None:
    """Also where a label is missing, or names a class that the model does not know."""
    rows = 400
    random = np.random.default_rng(7)
    probabilities = random.dirichlet([2, 1, 1], rows)
    truth = random.integers(0, 3, rows)
    three = OUTPUT.model_copy(update={"classes": [7, 8, 9], "positive": None})
    version.score(rows, as_of=DAY)
    with transaction(version.engine) as connection:
        stored = {
            "predictions": [str(7 + place) for place in probabilities.argmax(axis=1)],
            "probability": None,
            "probabilities": probabilities.T.reshape(-1).tolist(),
        }
        connection.execute(sa.update(prediction_block).values(stored))
    told = [NewLabel(str(7 + place), DAY, record_key=f"k{row}") for row, place in enumerate(truth.tolist(), 1)]
    version.label(*told[10:], NewLabel("10", DAY, record_key="k1"))
    labelled.count_dirty_days(version.engine, version.model_id, version.version_id, three)
    with transaction(version.engine) as connection:
        (counted,) = labels.counted(connection, version.version_id, date(2000, 1, 1), date(2100, 1, 1))
    found = metrics(from_json(counted.outcomes))
    assert (counted.scored, counted.labelled, counted.outcomes["scored"]) == (rows, rows - 9, rows - 10)
    assert found["log_loss"].value == pytest.approx(log_loss(truth[10:], probabilities[10:]), rel=1e-12)


def test_texts_of_several_lines_are_cut_between_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "_BATCH_BYTES", 1)
    counter = labelled._Counter(OUTPUT, Policy(), DAY)
    for byte in b'1,0.5,"a\n""b\nc",2026-03-01 12:00:00+00\n1,0.5,1,2026-03-01 12:00:00.25+00\n':
        counter.write(bytes([byte]))
    counter.flush()
    assert (counter.scored, counter.labelled) == (2, 2)


# ---- the audit


def accuracy(version: Audited, end: datetime, tmp_path: Path) -> dict[str, Any]:
    with transaction(version.engine) as connection:
        request = Request(
            "accuracy", version.model_id, version.version_id, end - timedelta(hours=24), end, "", alerting=False
        )
        run_id = audits.request(connection, request)
    audit.run_one(version.engine, None, tmp_path)  # type: ignore[arg-type]  # only the domain audit reads artefacts
    with transaction(version.engine) as connection:
        row = audits.by_id(connection, version.tenant, run_id)
    assert row.state == "done", row.error
    return dict(row.document)


@pytest.mark.parametrize("rolled_up", [True, False])
def test_coverage_is_the_share_of_labels_among_the_rows_of_the_same_days(
    version: Audited, tmp_path: Path, rolled_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are counted by the day; a window that ends at noon takes both days whole, labels and rows alike."""
    if not rolled_up:  # another worker is at it
        monkeypatch.setattr(audit, "roll_up", lambda _: 0)
    version.score(300, as_of=DAY.replace(hour=5))
    version.score(100, first_row=401, as_of=NEXT)
    version.score(100, first_row=501, as_of=NEXT.replace(hour=20))
    version.score(1000, first_row=1001, as_of=NEXT + timedelta(days=1))
    version.label(*keyed(range(1, 301)))
    found = accuracy(version, NEXT.replace(hour=15, minute=30), tmp_path)
    assert (found["scored"], found["labelled"], found["coverage"]) == (500, 300, pytest.approx(0.6))
    assert found["window"] == {"start": "2026-03-01T00:00:00Z", "end": "2026-03-03T00:00:00Z"}
    whole = accuracy(version, DAY.replace(hour=0) + timedelta(days=1), tmp_path)
    assert (whole["scored"], whole["labelled"]) == (300, 300)
    assert whole["window"] == {"start": "2026-03-01T00:00:00Z", "end": "2026-03-02T00:00:00Z"}
