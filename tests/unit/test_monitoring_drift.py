"""Drift: the binned statistics equal SciPy's, what matters is told, what does not is not, and nothing aborts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from profiled import OneColumn, error, same_scores, scores_of, signature_of, table_of
from scipy.spatial.distance import jensenshannon
from scipy.special import kolmogorov
from scipy.stats import chi2, ks_2samp, wasserstein_distance

from monitoring import statistics
from monitoring.checks import Thresholds
from monitoring.drift import ColumnDrift, Drift, drift, exact_ks
from monitoring.profile import profile_of
from monitoring.schema import schema_of
from registry.runtime import Scores
from registry.signature import Output

ROWS = 2_000


def normal(seed: int, rows: int = ROWS, *, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, rows)


def with_nulls(values, share: float) -> list[float | None]:
    """The first of the values as nulls."""
    nulls = round(share * len(values))
    return [None] * nulls + list(values[nulls:])


def words(rows: int, **shares: float) -> list[str]:
    """Words in the given shares, exactly; the last one takes what remains."""
    found = [word for word, share in shares.items() for _ in range(round(share * rows))]
    return (found + [list(shares)[-1]] * rows)[:rows]


def checked(column: OneColumn, cells, errors=()) -> Drift:
    return drift(column.schema, column.reference, column.profile(cells, errors))


def check(found: Drift, statistic: str, name: str = "x") -> ColumnDrift:
    (result,) = [one for one in found.columns if (one.name, one.statistic) == (name, statistic)]
    return result


def verdict(type: str, reference, cells, statistic: str) -> ColumnDrift:
    return check(checked(OneColumn(type, reference), cells), statistic)


# ---- the statistics beside SciPy's


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (normal(1, 20_000), normal(2, 20_000)),
        (normal(1, 20_000), normal(2, 20_000, shift=0.35)),
        (normal(1, 20_000), normal(2, 20_000, scale=1.5)),
        (np.exp(normal(3, 20_000)), np.exp(normal(4, 20_000, shift=0.2))),
        (np.append(normal(1, 20_000), 1e6), normal(2, 20_000, shift=0.8)),
    ],
)
def test_ks_is_that_of_scipy_on_continuous_values(reference, current):
    found = verdict("number", reference, current, "ks")
    expected, _ = exact_ks(reference, current)
    assert found.value == pytest.approx(expected, abs=0.002)
    assert found.value <= expected + 1e-12  # the edges are some of the places where the distance may be largest


@pytest.mark.parametrize(("low", "high", "step"), [(0, 72, 1), (3, 90, 1), (-500, 500, 50), (1000, 1100, 1)])
def test_ks_is_that_of_scipy_on_integers_exactly(low, high, step):
    reference = np.random.default_rng(5).integers(0, 73, ROWS).astype(float)
    current = np.random.default_rng(6).integers(low // step, high // step, 700).astype(float) * step
    found = verdict("integer", reference, current, "ks")
    assert found.value == pytest.approx(ks_2samp(reference, current).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("current", "within"),
    [
        (normal(2, shift=0.5), 0.01),
        (np.append(normal(2), 1e6), 0.01),
        (normal(2, shift=9.0), 0.01),
        (normal(2, shift=3.0) * 1000, 0.01),
        (normal(2, shift=0.5, scale=2.0), 0.06),  # beyond the reference on both sides
    ],
)
def test_wasserstein_is_about_that_of_scipy(current, within):
    reference = normal(1)
    found = verdict("number", reference, current, "ks").details["wasserstein_per_sigma"]
    assert found == pytest.approx(wasserstein_distance(reference, current) / reference.std(), rel=within)


def test_figures_that_are_told_with_ks():
    reference, current = normal(1), normal(2, shift=0.5, scale=2.0)
    details = verdict("number", reference, current, "ks").details
    assert details["mean"] == pytest.approx(current.mean())
    told = list(details["quantiles"].values())
    assert told == pytest.approx(np.quantile(current, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(), abs=0.15)
    edges = np.quantile(reference, np.arange(1, 10) / 10)
    deciles = [np.bincount(np.searchsorted(edges, values), minlength=10) for values in (reference, current)]
    assert details["psi"] == pytest.approx(statistics.psi(*deciles)[0], rel=0.1)


def test_p_values_are_those_of_scipy():
    for distance in (0.001, 0.01, 0.03, 0.1, 0.9):
        expected = kolmogorov(distance * np.sqrt(1000 * 3000 / 4000))
        assert statistics.ks_p_value(distance, 1000, 3000) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    for degrees in (1, 2, 3, 8, 99):
        for value in (0.0, 0.5, 7.0, 120.0):
            assert statistics.chi_squared_tail(value, degrees) == pytest.approx(chi2.sf(value, degrees), rel=1e-9)
    shares = np.array([30, 50, 0, 20]), np.array([10, 20, 30, 40])
    assert statistics.jensen_shannon(*shares) == pytest.approx(jensenshannon(*shares, base=2))


def test_psi_of_two_samples_of_one_distribution_is_about_zero_and_its_p_value_uniform():
    random = np.random.default_rng(7)
    shares = random.dirichlet(np.full(20, 5.0))
    samples = [(random.multinomial(5_000, shares), random.multinomial(600, shares)) for _ in range(500)]
    raw = [float(((q - p) * np.log(q / p)).sum()) for p, q in (((a + 0.5) / 5010, (b + 0.5) / 610) for a, b in samples)]
    values, p_values = zip(*(statistics.psi(*pair) for pair in samples), strict=True)
    assert np.mean(values) < 0.01
    assert np.mean(raw) > 0.03  # what is subtracted is not small
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_intervals_and_false_discoveries():
    assert statistics.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    # Newcombe 1998, table II: 56/70 - 48/80, method 10
    assert statistics.rate_difference((48, 80), (56, 70)) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert statistics.discoveries([0.001, None, 0.04, 0.011, 0.9], 0.02) == [True, False, False, False, False]
    assert statistics.discoveries([0.004, None, 0.04, 0.009, 0.9], 0.02) == [True, False, False, True, False]
    # The bound of Wilson and the p-value of a share turn at the same place.
    low, _ = statistics.wilson(30, 1000, z=2.3263478740408408)
    assert statistics.share_p_value(30, 1000, low) == pytest.approx(0.01)


# ---- verdicts


@pytest.mark.parametrize(
    ("type", "reference", "cells", "statistic", "status"),
    [
        ("number", normal(1), with_nulls(normal(2), 0.10), "null_rate_difference", "critical"),
        ("number", normal(1), with_nulls(normal(2), 0.02), "null_rate_difference", "warn"),
        ("number", with_nulls(normal(1), 0.10), with_nulls(normal(2), 0.10), "null_rate_difference", "ok"),
        ("number", with_nulls(normal(1), 0.10), normal(2), "null_rate_difference", "ok"),
        ("number", normal(1), normal(2) * 1000, "ks", "critical"),
        ("number", normal(1), normal(2) * 1000, "out_of_range_rate_difference", "critical"),
        ("integer", np.arange(ROWS) % 60.0, np.arange(ROWS) % 60.0 * 1000, "ks", "critical"),
        ("number", np.append(normal(1), 1e6), normal(2, shift=0.8), "ks", "critical"),
        ("number", np.append(normal(1), 1e6), normal(2), "ks", "ok"),
        ("number", normal(1), normal(2, shift=0.35), "ks", "warn"),
        ("number", normal(1), normal(2), "ks", "ok"),
        ("text", ["a" * 20] * 1000 + ["b" * 30] * 1000, ["a" * 21] * 1000 + ["b" * 30] * 1000, "ks", "critical"),
        ("category", words(ROWS, a=0.5, b=0.5), words(ROWS, a=0.5, b=0.44, c=0.06), "unseen_share", "critical"),
        ("category", words(ROWS, a=0.5, b=0.5), words(ROWS, a=0.5, b=0.48, c=0.02), "unseen_share", "warn"),
        ("category", words(ROWS, a=0.5, b=0.5), words(ROWS, a=0.5, b=0.496, c=0.004), "unseen_share", "ok"),
        ("category", words(ROWS, a=0.5, b=0.5), words(ROWS, a=0.5, b=0.44, c=0.06), "psi", "ok"),
        ("category", words(ROWS, a=0.5, b=0.5), words(ROWS, a=0.8, b=0.2), "psi", "critical"),
        ("boolean", [True] * 900 + [False] * 1100, [True] * 1250 + [False] * 750, "psi", "warn"),
        ("boolean", [True] * 900 + [False] * 1100, [True] * 930 + [False] * 1070, "psi", "ok"),
    ],
)  # fmt: skip
def test_what_matters_is_told_and_what_does_not_is_not(type, reference, cells, statistic, status):
    assert verdict(type, reference, cells, statistic).status == status


def test_a_harmless_shift_of_a_large_window_is_real_and_ok():
    found = verdict("number", normal(1, 100_000), normal(2, 100_000, shift=0.02), "ks")
    assert found.significant
    assert found.p_value < 0.001
    assert found.status == "ok"


def test_the_noise_of_a_small_window_is_ok_however_large_it_is():
    reference = [*(f"c{at}" for at in range(40) for _ in range(20))]
    random = np.random.default_rng(8)
    for _ in range(20):
        found = verdict("category", reference, random.choice(reference, 500).tolist(), "psi")
        assert found.status == "ok", found


def test_cells_of_a_wrong_type_are_told():
    column = OneColumn("number", normal(1))
    found = checked(column, normal(2, 1000), [error("x", "wrong_type")] * 60 + [error("x", "non_finite")] * 10)
    rate = check(found, "type_error_rate_difference")
    assert (rate.status, rate.value) == ("critical", pytest.approx(70 / 1070))
    assert check(found, "null_rate_difference").status == "ok"
    gone = checked(column, [], [error("x", "wrong_type")] * 1000)
    assert check(gone, "type_error_rate_difference").value == 1.0
    assert check(gone, "ks").status == "insufficient_data"
    assert (gone.rows, gone.errored, gone.status) == (0, 1000, "critical")


@pytest.mark.parametrize("type", ["number", "integer", "boolean", "category", "text", "timestamp"])
def test_a_column_that_is_all_null_or_gone_is_critical_and_aborts_nothing(type):
    cells = {
        "number": normal(1), "integer": np.arange(ROWS) % 7.0, "boolean": [True, False] * 1000,
        "category": ["a", "b"] * 1000, "text": ["some", "words"] * 1000,
        "timestamp": np.arange(ROWS).astype("datetime64[us]"),
    }[type]  # fmt: skip
    column = OneColumn(type, cells)
    found = checked(column, [None] * ROWS)
    gone = profile_of(column.schema, column.table(cells).drop_columns(["x"]), same_scores(ROWS), [])
    for one in (found, drift(column.schema, column.reference, gone)):
        assert check(one, "null_rate_difference").status == "critical"
        distribution = check(one, "psi" if type in ("boolean", "category") else "ks")
        assert (distribution.status, distribution.value) == ("insufficient_data", None)
        assert "no value" in distribution.details["reason"]
        assert check(one, "psi", "prediction").status == "ok"
        assert one.status == "critical"


@pytest.mark.parametrize("reference", [np.arange(ROWS), np.zeros(ROWS, np.int64)], ids=["spread", "constant"])
def test_time_moves_on_which_is_told_and_no_drift(reference):
    column = OneColumn("timestamp", reference.astype("datetime64[s]"))
    later = (10**9 + np.arange(ROWS)).astype("datetime64[s]")
    found = checked(column, later)
    moved = check(found, "changed_share" if not reference.any() else "ks")
    assert (moved.value, moved.status, moved.details["reason"]) == (1.0, "ok", "time moves on")
    assert found.status == "ok"
    holes = checked(column, [*later[: ROWS // 2], *[None] * (ROWS // 2)])
    assert check(holes, "null_rate_difference").status == "critical"


@pytest.mark.parametrize(
    ("type", "constant", "other"),
    [
        ("number", 5.0, 5.5),
        ("integer", 0.0, 1.0),
        ("boolean", False, True),
        ("category", "a", "b"),
        ("number", None, 1.0),
    ],
)
def test_a_column_that_is_constant_in_the_reference(type, constant, other):
    column = OneColumn(type, [constant] * 1000)
    same = checked(column, [constant] * 1000)
    assert check(same, "changed_share").status == "ok"
    assert same.status == "ok"
    for changed, status in ((5, "ok"), (25, "warn"), (100, "critical")):
        result = check(checked(column, [constant] * (1000 - changed) + [other] * changed), "changed_share")
        assert (result.status, result.value) == (status, changed / 1000)
    assert result.details["reference_value"] == (str(constant).lower() if type == "boolean" else constant)


def test_a_reference_whose_only_value_is_gone_in_the_window():
    found = checked(OneColumn("number", [5.0] * 1000), [None] * 1000)
    assert check(found, "changed_share").status == "insufficient_data"
    assert check(found, "null_rate_difference").status == "critical"


def test_a_column_that_became_constant_has_drifted():
    assert verdict("number", normal(1), [0.0] * 1000, "ks").status == "critical"
    assert verdict("category", ["a", "b"] * 500, ["a"] * 1000, "psi").status == "critical"


def test_numbers_too_large_to_square_abort_nothing():
    found = checked(OneColumn("number", [1e200, -1e200, 1.7e308, -1.7e308, 0.0] * 200), [1.7e308, 3.0] * 500)
    assert check(found, "ks").status == "critical"
    json.dumps(found.model_dump(), allow_nan=False)


def test_unseen_values_are_named():
    found = verdict("category", ["a", "b"] * 1000, ["a", "b"] * 450 + ["Z", "ä"] * 50, "unseen_share")
    assert found.details["unseen_values"] == ["Z", "ä"]
    assert found.details["count"] == 100
    assert found.details["low"] < found.value == 0.1 < found.details["high"]


@pytest.mark.parametrize(("rows", "unseen", "status"), [(500, 9, "ok"), (500, 10, "warn"), (2000, 12, "ok")])
def test_a_few_unseen_values_are_no_evidence(rows, unseen, status):
    """Nine are too few, and twelve of 2,000 are above the threshold of 0.5 %, but not surely so."""
    found = verdict("category", ["a", "b"] * 1000, ["a"] * (rows - unseen) + ["c"] * unseen, "unseen_share")
    assert found.value > found.warn
    assert (found.status, found.significant) == (status, status != "ok")


def test_changes_are_told_by_category():
    details = verdict("category", words(ROWS, a=0.6, b=0.4), words(ROWS, a=0.3, b=0.7), "psi").details
    assert details["changes"] == pytest.approx({"a": -0.3, "b": 0.3})
    assert details["largest_change"] == pytest.approx(0.3)


# ---- how many rows it takes


@pytest.mark.parametrize(
    ("rows", "status"), [(500, "critical"), (499, "advisory"), (200, "advisory"), (199, "insufficient_data")]
)
def test_rows_that_a_verdict_takes(rows, status):
    found = checked(OneColumn("number", normal(1)), normal(2, rows, shift=3.0))
    assert check(found, "ks").status == found.status == status
    same = checked(OneColumn("number", normal(1)), normal(2, rows))
    assert same.status == ("insufficient_data" if rows < 200 else "ok")


def test_a_column_is_judged_by_its_own_values():
    found = checked(
        OneColumn("number", with_nulls(normal(1), 0.9)), with_nulls(normal(2, 3000, shift=3.0), 0.9)
    )  # fmt: skip
    assert check(found, "ks").status == "advisory"
    assert check(found, "null_rate_difference").status == "ok"
    assert found.status == "ok"


# ---- the whole


def window(columns: int, shifted: int, shift: float, positive=None) -> Drift:
    """A window in which some columns of many shifted, and possibly the probabilities."""
    types = {f"x{at}": "number" for at in range(columns)}
    features = table_of(types, {name: normal(at) for at, name in enumerate(types)})
    schema = schema_of(signature_of(types), features, same_scores(ROWS))
    later = table_of(
        types, {name: normal(100 + at, shift=shift if at < shifted else 0.0) for at, name in enumerate(types)}
    )
    scores = same_scores(ROWS) if positive is None else scores_of(positive)
    return drift(schema, profile_of(schema, features, same_scores(ROWS), []), profile_of(schema, later, scores, []))


@pytest.mark.parametrize(
    ("columns", "shifted", "shift", "status"),
    [
        (10, 0, 0.35, "ok"),
        (10, 2, 0.35, "ok"),  # of twelve with the outputs: fewer than a fifth
        (10, 3, 0.35, "warn"),
        (2, 1, 0.35, "ok"),
        (2, 2, 0.35, "warn"),
        (10, 1, 3.0, "critical"),
    ],
)
def test_the_whole_follows_its_columns(columns, shifted, shift, status):
    assert window(columns, shifted, shift).status == status


def test_the_whole_warns_when_the_prediction_does():
    found = window(10, 0, 0.0, np.linspace(0.0, 0.85, ROWS))
    assert check(found, "ks", "probability").status == "warn"
    assert found.status == "warn"


def test_rare_scores_that_all_fall_into_one_of_the_equal_bins_are_told_apart():
    column = OneColumn("number", normal(1))
    reference, current = np.linspace(1e-5, 2e-3, ROWS), np.linspace(1e-3, 4e-3, ROWS)
    schema = schema_of(signature_of(column.types), column.table(normal(1)), scores_of(reference))
    before, now = (profile_of(schema, column.table(normal(1)), scores_of(one), []) for one in (reference, current))
    found = check(drift(schema, before, now), "ks", "probability")
    assert found.value == pytest.approx(exact_ks(reference, current)[0], abs=0.01)


def test_a_regression_is_audited():
    types = {"x": "number"}
    features = table_of(types, {"x": normal(1)})
    schema = schema_of(signature_of(types, Output(kind="regression")), features, Scores(normal(2), None))
    before, now = (profile_of(schema, features, Scores(normal(3, shift=by), None), []) for by in (0.0, 2.0))
    found = drift(schema, before, now)
    assert check(found, "ks", "prediction").status == found.status == "critical"


def test_each_check_has_its_own_result_and_all_is_json():
    found = window(3, 1, 0.35)
    assert len({(one.name, one.statistic) for one in found.columns}) == len(found.columns)
    told = json.loads(found.model_dump_json())
    assert set(told["columns"][0]) == {
        "name", "type", "statistic", "value", "warn", "critical", "p_value", "significant", "status", "details",
    }  # fmt: skip
    assert {one["name"] for one in told["columns"]} == {"x0", "x1", "x2", "prediction", "probability"}


def test_thresholds_may_be_set():
    column = OneColumn("number", normal(1))
    strict = Thresholds.model_validate({"ks": {"warn": 0.01, "critical": 0.05}})
    found = drift(column.schema, column.reference, column.profile(normal(2, shift=0.2)), strict)
    assert (check(found, "ks").status, check(found, "ks").warn) == ("critical", 0.01)


def test_profiles_of_another_schema_are_refused():
    one, other = OneColumn("number", normal(1)), OneColumn("number", normal(2))
    with pytest.raises(ValueError, match="must be of the schema"):
        drift(one.schema, one.reference, other.reference)
