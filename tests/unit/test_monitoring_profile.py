"""Profiles: each cell is counted once, and profiles of parts add up to the profile of the whole."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from profiled import OneColumn, error, scores_of, signature_of, table_of

from errors import ScorehouseError
from monitoring.profile import Profile, from_bytes, merge, profile_of, score_histogram
from monitoring.schema import schema_of
from registry.runtime import Scores

TYPES = {
    "amount": "number", "visits": "integer", "member": "boolean", "region": "category", "note": "text", "since": "timestamp",
}  # fmt: skip
ROWS = 3_000


def cells_of(seed: int):
    random = np.random.default_rng(seed)
    empty = random.random(ROWS) < 0.1
    words = random.choice(["north", "south", "east"], ROWS)
    return {
        "amount": [None if null else value for null, value in zip(empty, random.normal(1e6, 2.0, ROWS), strict=True)],
        "visits": random.integers(0, 40, ROWS).astype(float),
        "member": random.random(ROWS) < 0.4,
        "region": [f"new {seed}" if null else str(word) for null, word in zip(empty, words, strict=True)],
        "note": ["x" * length for length in random.integers(1, 300, ROWS)],
        "since": [datetime(2013, 1, 1) + timedelta(minutes=int(at)) for at in random.integers(0, 500_000, ROWS)],  # noqa: DTZ001 - features have no zone
    }


def chunk(seed: int):
    return table_of(TYPES, cells_of(seed)), scores_of(np.random.default_rng(seed).beta(1, 3, ROWS))


@pytest.fixture(scope="module")
def schema():
    return schema_of(signature_of(TYPES), *chunk(0))


def assert_same(one: Profile, other: Profile) -> None:
    assert (one.rows, one.errored, dict(one.unseen)) == (other.rows, other.errored, dict(other.unseen))
    assert np.array_equal(one.counts, other.counts)
    assert np.array_equal(one.faults, other.faults)
    assert np.allclose(one.moments, other.moments, rtol=1e-9)


def test_parts_merge_to_the_whole(schema):
    features, scores = chunk(1)
    errors = [error("amount", "wrong_type"), error("visits", "missing_value")]
    whole = profile_of(schema, features, scores, errors)
    bounds = [0, 1, 700, 700, ROWS]
    parts = [
        profile_of(
            schema, features.slice(start, end - start),
            Scores(scores.prediction[start:end], scores.probabilities[start:end]), errors if start == 1 else [],
        )
        for start, end in pairwise(bounds)
    ]  # fmt: skip
    assert_same(merge(parts), whole)
    assert_same(merge([merge(parts[:2]), merge(parts[2:])]), whole)
    assert parts[0].rows == 1  # merging left its parts alone


def test_each_cell_is_counted_once(schema):
    features, scores = chunk(2)
    found = profile_of(schema, features, scores, [error("amount", "wrong_type"), error(None, "invalid_json")])
    assert (found.rows, found.errored) == (ROWS, 2)
    for column in schema.columns:
        extra = 1 if column.name == "amount" else 0
        assert found.column(column.name).cells == ROWS + extra
    assert found.column("amount").nulls == features.column("amount").null_count > 0


def test_moments_keep_their_digits(schema):
    features, scores = chunk(3)
    amounts = features.column("amount").drop_null().to_numpy()
    found = profile_of(schema, features, scores, []).column("amount")
    assert found.mean == pytest.approx(amounts.mean(), rel=1e-14)
    assert found.deviation == pytest.approx(amounts.std(), rel=1e-9)
    assert (found.minimum, found.maximum) == (amounts.min(), amounts.max())


def test_what_lies_beyond_the_reference_is_counted():
    column = OneColumn("number", np.linspace(5.0, 10.0, 1000))
    found = column.profile([4.999, 5.0, 7.0, 10.0, np.nextafter(10.0, 11.0), 1e300]).column("x")
    assert (found.below, found.above, found.values) == (1, 2, 6)
    assert found.maximum == 1e300


def test_row_errors_count_as_faults_of_their_column():
    column = OneColumn("number", np.arange(10.0))
    errors = [
        error("x", "wrong_type"), error("x", "too_long"), error("x", "missing_value"), error("x", "missing_column"),
        error("x", "missing_value"), error("x", "non_finite"), error(None, "wrong_field_count"), error("key", "too_long"),
    ]  # fmt: skip
    profile = column.profile([1.0, None], errors)
    found = profile.column("x")
    assert (found.type_errors, found.missing, found.non_finite, found.nulls) == (2, 3, 1, 1)
    assert (profile.rows, profile.errored) == (2, 8)


def test_numbers_that_are_not_finite_are_no_values():
    column = OneColumn("number", np.arange(10.0))
    found = column.profile([1.0, np.nan, np.inf, -np.inf, None]).column("x")
    assert (found.values, found.non_finite, found.nulls) == (1, 3, 1)
    assert (found.minimum, found.maximum, found.mean) == (1.0, 1.0, 1.0)


def test_a_column_that_is_not_there_is_missing_in_each_row(schema):
    features, scores = chunk(4)
    found = profile_of(schema, features.drop_columns(["region"]), scores, [])
    assert (found.column("region").missing, found.column("region").values) == (ROWS, 0)
    assert found.column("visits").values == ROWS


def test_unseen_words_are_kept_up_to_twenty():
    column = OneColumn("category", ["a", "b"])
    parts = [column.profile([f"{part}-{at}" for at in range(15)] + ["a"]) for part in range(2)]
    assert parts[0].column("x").unseen_values == tuple(f"0-{at}" for at in range(15))
    found = merge(parts).column("x")
    assert found.bins[column.schema.columns[0].unseen] == 30
    assert len(found.unseen_values) == 20
    assert len(column.profile(["z" * 5000]).column("x").unseen_values[0]) == 100


def test_words_of_rows_that_were_left_out_do_not_count():
    """A dictionary keeps the words of rows that were taken out for an error."""
    column = OneColumn("category", ["a", "b"])
    kept = column.table(["a", "strange", "b"]).take([0, 2])
    found = profile_of(column.schema, kept, scores_of([0.1, 0.9]), []).column("x")
    assert found.bins.tolist() == [1, 1, 0, 0]
    assert found.unseen_values == ()


def test_an_empty_chunk_has_a_profile(schema):
    features, scores = chunk(5)
    nothing = Scores(scores.prediction[:0], scores.probabilities[:0])
    empty = profile_of(schema, features.slice(0, 0), nothing, [error("amount", "wrong_type")])
    whole = profile_of(schema, features, scores, [])
    assert_same(merge([empty, whole]), dataclasses.replace(whole, errored=1, faults=whole.faults + empty.faults))


def test_a_stored_profile_is_small_and_comes_back(schema):
    features, scores = chunk(6)
    profile = profile_of(schema, features, scores, [error("amount", "non_finite")])
    data = profile.to_bytes()
    assert len(data) < 4_000
    again = from_bytes(schema, data)
    assert_same(again, profile)
    assert np.array_equal(again.moments, profile.moments)
    assert_same(merge([again, again]), merge([profile, profile]))


def test_profiles_of_two_schemas_never_meet(schema):
    profile = profile_of(schema, *chunk(7), [])
    other = schema_of(signature_of(TYPES), *chunk(8))
    with pytest.raises(ValueError, match="do not merge"):
        merge([profile, profile_of(other, *chunk(7), [])])
    with pytest.raises(ValueError, match="is of schema"):
        from_bytes(other, profile.to_bytes())


def test_what_cannot_be_read_is_refused(schema):
    data = profile_of(schema, *chunk(7), []).to_bytes()
    with pytest.raises(ValueError, match="format 02"):
        from_bytes(schema, b"\x02" + data[1:])
    with pytest.raises(ScorehouseError, match="damaged"):
        from_bytes(schema, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="no profile"):
        merge([])


def test_the_format_is_the_same_in_every_release():
    """Profiles are stored: one that an earlier release wrote must be read for ever."""
    column = OneColumn("integer", [1.0, 2.0, 2.0, 5.0])
    found = from_bytes(column.schema, bytes.fromhex(FROZEN)).column("x")
    assert found.bins[found.bins > 0].tolist() == [1, 2, 1]
    assert (found.nulls, found.type_errors, found.mean, found.maximum) == (1, 1, 3.0, 7.0)


def test_scores_are_told_in_200_equal_bins(schema):
    positive = np.array([0.0, 0.0049, 0.005, 0.4999, 0.5, 0.995, 1.0])
    features, _ = chunk(9)
    found = score_histogram(profile_of(schema, features.slice(0, 7), scores_of(positive), []))
    assert found.shape == (200,)
    assert {int(at): int(found[at]) for at in np.flatnonzero(found)} == {0: 2, 1: 1, 99: 1, 100: 1, 199: 2}


FROZEN = (
    "01e9a58b19a2d8aa06cc142d3998a16b67a1d0242413851cd2b8b89774870582"
    "7128b52ffd649a060d0300b40305000100010002000001020301000100010001"
    "1040003af03f1c40f07f00f0ff006891ed7c3f35e33f7b14ae47e17a843fae47"
    "e17a14aeef3f7b7d1000200768072000060603579281d69904df742f03444d10"
    "3541d40064711e0e321e0016348cbaab"
)
