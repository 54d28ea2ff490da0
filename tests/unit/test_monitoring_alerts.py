from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import Conflict, InvalidInput
from monitoring.alerts import AlertState, Observation, Transition, acknowledge, step, suppress

START = datetime(2025, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
#: A value, as the letters of a series say it, of a check that warns at 0.10 and is critical at 0.20.
VALUES = {"c": 0.05, "n": 0.09, "w": 0.15, "C": 0.25}
STATUSES = {"c": "ok", "n": "ok", "w": "warn", "C": "critical", "-": "insufficient_data", "a": "advisory"}


def window(number: int) -> datetime:
    return START + number * HOUR


def observed(letter: str, number: int, check: str = "ks") -> Observation:
    """c: clear, n: near the threshold, w: warn, C: critical, -: insufficient, a: advisory."""
    return Observation(STATUSES[letter], VALUES.get(letter), 0.10, 0.20, check, window(number))


def run(
    letters: str, alert: AlertState | None = None, *, first: int = 0, check: str = "ks"
) -> tuple[AlertState, list[str]]:
    """The state after one window per letter, and each letter's new state where it changed ("" where not)."""
    alert, told = alert or AlertState(), []
    for number, letter in enumerate(letters, first):
        alert, transition = step(alert, observed(letter, number, check), window(number + 1))
        told.append(transition.state if transition else "")
    return alert, told


FIRING = run("ww")[0]


@pytest.mark.parametrize(
    ("letters", "changes"),
    [
        ("ccc", ["", "", ""]),
        ("w", ["pending"]),
        ("ww", ["pending", "firing"]),
        ("wcw", ["pending", "", "firing"]),
        ("wcc", ["pending", "", ""]),
        ("wccc", ["pending", "", "", "ok"]),
        ("wccw", ["pending", "", "", ""]),
        ("C", ["pending"]),
        ("CcC", ["pending", "", "firing"]),
    ],
)
def test_it_fires_on_two_of_the_last_three_windows(letters: str, changes: list[str]) -> None:
    assert run(letters)[1] == changes


def test_it_is_over_after_three_windows_that_are_clear_in_a_row() -> None:
    alert, changes = run("ccwccc", FIRING, first=2)
    assert changes == ["", "", "", "", "", "resolved"]
    assert (alert.severity, alert.clear_count) == (None, 3)
    assert run("cww", alert, first=8)[1] == ["", "pending", "firing"]


def test_below_the_threshold_is_not_yet_clear() -> None:
    """0.09 of 0.10 is judged ok, and may be bad again in the next window."""
    alert, changes = run("nnnnnnnccnccc", FIRING, first=2)
    assert changes == [""] * 12 + ["resolved"]
    assert run("wnw")[1] == ["pending", "", "firing"]
    assert alert.value == VALUES["c"]


def on_the_threshold(seed: int) -> list[float]:
    """200 values around 0.10, each like the one before, with a standard deviation of 0.005."""
    values = [0.0]
    for shock in np.random.default_rng(seed).normal(0, 0.0045, 199):
        values.append(0.45 * values[-1] + shock)
    return [0.10 + value for value in values]


def test_a_score_on_its_threshold_is_told_of_once() -> None:
    raw_changes = 0
    for seed in range(10):
        alert, told, statuses = AlertState(), [], []
        for number, value in enumerate(on_the_threshold(seed)):
            statuses.append("warn" if value >= 0.10 else "ok")
            observation = Observation(statuses[-1], value, 0.10, 0.20, "ks", window(number))
            alert, transition = step(alert, observation, window(number + 1))
            told += [transition.state] if transition and transition.notifies else []
        assert told == ["firing"]
        raw_changes += sum(one != other for one, other in pairwise(statuses))
    assert 650 < raw_changes < 750  # about 70 in each series of 200


@pytest.mark.parametrize("unjudged", ["-", "a"])
def test_windows_that_cannot_be_judged_hold_every_state(unjudged: str) -> None:
    many = unjudged * 20
    assert run(f"w{many}w")[1][-1] == "firing"
    assert run(many)[0] == AlertState()
    alert, changes = run(f"c{many}c{many}c", FIRING, first=2)
    assert changes[:-1] == [""] * 42
    assert changes[-1] == "resolved"
    held, _ = run(many, FIRING, first=2)
    assert held == FIRING
    assert alert.clear_count == 3


def test_advisory_windows_never_fire_even_an_immediate_check() -> None:
    alert = AlertState()
    for number in range(10):
        observation = Observation("advisory", 0.9, 0.01, 0.05, "null_rate_difference", window(number))
        alert, transition = step(alert, observation, window(number + 1))
        assert transition is None
    assert alert.state == "ok"


@pytest.mark.parametrize("check", ["null_rate_difference", "type_error_rate_difference", "missing"])
def test_rows_that_break_fire_at_once(check: str) -> None:
    alert, changes = run("cC", check=check)
    assert changes == ["", "firing"]
    assert alert.severity == "critical"
    assert run("cw", check=check)[1] == ["", "pending"]
    assert run("ccc", alert, first=2, check=check)[1] == ["", "", "resolved"]


def test_a_missing_column_has_neither_value_nor_threshold() -> None:
    alert, told = AlertState(), []
    for number, status in enumerate(["critical", "ok", "ok", "ok"]):
        observation = Observation(status, None, None, None, "missing", window(number))
        alert, transition = step(alert, observation, window(number + 1))
        told.append(transition.state if transition else "")
    assert told == ["firing", "", "", "resolved"]


@pytest.mark.parametrize("letters", ["w", "wc", "ww", "wwc", "wwcc", "wwccc", "Cw", "wcw"])
def test_a_window_that_is_audited_again_counts_once(letters: str) -> None:
    alert = AlertState()
    for number, letter in enumerate(letters):
        alert, _ = step(alert, observed(letter, number), window(number + 1))
        for hours in (2, 3, 100):
            again, transition = step(alert, observed(letter, number), window(number + hours))
            assert (again, transition) == (alert, None)


def test_another_result_for_a_window_replaces_the_first() -> None:
    pending, _ = run("cw")
    mended, transition = step(pending, observed("c", 1), window(3))
    assert transition is not None
    assert (mended.state, transition.previous) == ("ok", "pending")
    assert run("w", mended, first=2)[1] == ["pending"]
    worse, transition = step(run("wc")[0], observed("w", 1), window(3))
    assert transition is not None
    assert (worse.state, worse.value) == ("firing", VALUES["w"])
    unjudged, _ = step(pending, observed("-", 1), window(3))
    assert unjudged.state == "ok"
    assert run("w", unjudged, first=2)[1] == ["pending"]


def test_windows_count_in_their_own_order_not_in_that_of_their_coming() -> None:
    alert = AlertState()
    for number in (4, 0, 2):
        alert, _ = step(alert, observed("c", number), window(9))
    before = alert
    for number in (3, 1):
        alert, transition = step(alert, observed("w", number), window(9))
    assert [one.start for one in alert.recent] == [window(2), window(3), window(4)]
    assert (alert.state, transition) == ("pending", None)
    assert before.value == alert.value == VALUES["c"]  # the newest window's
    old, transition = step(
        run("ccc", first=5, check="null_rate_difference")[0], observed("C", 1, "null_rate_difference"), window(9)
    )
    assert (old.state, transition) == ("ok", None)


def test_an_older_bad_window_that_comes_late_keeps_an_alert_from_resolving() -> None:
    alert, _ = run("cc", FIRING, first=3)
    late, _ = step(alert, observed("w", 2), window(9))
    assert run("c", late, first=5) == (
        run("ccc", FIRING, first=3)[0].model_copy(update={"since": window(6)}),
        ["resolved"],
    )
    between, _ = step(run("c", FIRING, first=4)[0], observed("w", 5), window(9))
    assert run("cc", between, first=6)[1] == ["", ""]


def test_an_acknowledged_alert_is_quiet_and_resolves() -> None:
    alert, transition = acknowledge(FIRING, "ana", window(3))
    assert (alert.state, alert.acknowledged_by, alert.since) == ("acknowledged", "ana", window(3))
    assert (transition.previous, transition.state, transition.by) == ("firing", "acknowledged", "ana")
    assert not transition.notifies
    resolved, changes = run("wwwnccc", alert, first=3)
    assert changes == [""] * 6 + ["resolved"]
    assert resolved.acknowledged_by is None


def test_an_acknowledged_alert_fires_once_more_when_it_becomes_critical() -> None:
    acknowledged, _ = acknowledge(FIRING, "ana", window(3))
    alert, transition = step(acknowledged, observed("C", 3), window(4))
    assert transition is not None
    assert transition.notifies
    assert (alert.state, alert.severity, alert.acknowledged_by) == ("firing", "critical", None)
    again, _ = acknowledge(alert, "bo", window(5))
    assert run("CwCwC", again, first=5)[1] == [""] * 5


def test_a_firing_alert_that_becomes_critical_is_told_of_again() -> None:
    assert run("wCC", FIRING, first=2)[1] == ["", "firing", ""]
    assert run("wC")[0].severity == "critical"


def test_a_suppressed_alert_is_quiet_until_its_time_and_fires_then_if_it_stands() -> None:
    alert, transition = suppress(FIRING, window(6), "ana", window(2))
    assert (alert.state, alert.suppressed_until, transition.by) == ("suppressed", window(6), "ana")
    still, changes = run("wCw", alert, first=2)  # the last one is audited at hour 5
    assert changes == ["", "", ""]
    fired, transition = step(still, observed("w", 5), window(6))
    assert transition is not None
    assert (fired.state, fired.severity, fired.suppressed_until) == ("firing", "critical", None)
    held, transition = step(still, observed("-", 5), window(6))
    assert (held.state, transition is not None) == ("firing", True)


def test_a_suppressed_alert_resolves_and_does_not_fire_on_its_way_there() -> None:
    alert, _ = suppress(FIRING, window(4), "ana", window(2))
    assert run("ccc", alert, first=2)[1] == ["", "", "resolved"]
    assert run("ccn", alert, first=2)[1] == ["", "", "firing"]


def test_a_suppression_can_be_moved_and_an_acknowledged_alert_suppressed_and_back() -> None:
    alert, _ = suppress(FIRING, window(4), "ana", window(2))
    alert, _ = suppress(alert, window(9), "ana", window(3))
    assert run("www", alert, first=3)[1] == ["", "", ""]
    alert, _ = acknowledge(alert, "bo", window(5))
    assert (alert.state, alert.suppressed_until) == ("acknowledged", None)
    alert, _ = suppress(alert, window(9), "bo", window(6))
    assert (alert.state, alert.acknowledged_by) == ("suppressed", None)


@pytest.mark.parametrize("letters", ["", "c", "w", "wwccc"])
def test_only_what_stands_can_be_acknowledged_or_suppressed(letters: str) -> None:
    alert, _ = run(letters)
    with pytest.raises(Conflict, match="nothing to acknowledge"):
        acknowledge(alert, "ana", window(9))
    with pytest.raises(Conflict, match="nothing to suppress"):
        suppress(alert, window(10), "ana", window(9))


def test_an_alert_is_acknowledged_once_and_suppressed_into_the_future() -> None:
    alert, _ = acknowledge(FIRING, "ana", window(3))
    with pytest.raises(Conflict, match="already, by ana"):
        acknowledge(alert, "bo", window(4))
    with pytest.raises(InvalidInput, match="future"):
        suppress(FIRING, window(3), "ana", window(3))


def test_state_and_transition_survive_json() -> None:
    alert, transition = suppress(FIRING, window(6), "ana", window(2))
    assert AlertState.model_validate(json.loads(json.dumps(alert.model_dump(mode="json")))) == alert
    assert Transition.model_validate_json(transition.model_dump_json()) == transition


LETTERS = st.sampled_from("cnwC-a")
EVENTS = st.lists(
    st.one_of(st.tuples(LETTERS, st.integers(0, 12)), st.sampled_from(["acknowledge", "suppress"])), max_size=60
)


@given(EVENTS, st.sampled_from(["ks", "null_rate_difference"]))
@settings(max_examples=400, deadline=None)
def test_never_fires_from_fewer_than_two_bad_windows_nor_resolves_from_fewer_than_three_clear_ones(
    events: list[tuple[str, int] | str], check: str
) -> None:
    """With windows in any order, again and again, and people in between."""
    alert, results = AlertState(), dict[int, str]()
    for turn, event in enumerate(events):
        now = window(100 + turn)
        if isinstance(event, str):
            if alert.state in ("firing", "suppressed"):
                alert, _ = (
                    acknowledge(alert, "ana", now)
                    if event == "acknowledge"
                    else suppress(alert, now + 3 * HOUR, "ana", now)
                )
            continue
        letter, number = event
        results[number] = letter
        before = alert.state
        alert, transition = step(alert, observed(letter, number, check), now)
        held = [results[(one.start - START) // HOUR] for one in alert.recent]
        starts = [one.start for one in alert.recent]
        assert starts == sorted(set(starts))
        assert len(starts) <= 3
        assert (alert.severity is None) == (alert.state in ("ok", "resolved"))
        if transition is None:
            assert alert.state == before
        elif transition.state == "firing" and before in ("ok", "pending", "resolved"):
            immediate = check == "null_rate_difference" and letter == "C"
            assert immediate or sum(one in "wC" for one in held) >= 2
        elif transition.state == "resolved":
            assert held == ["c", "c", "c"]
