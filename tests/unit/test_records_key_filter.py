"""The filter over record keys: it never denies a key that is there, and seldom claims one that is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.key_filter import GROUP_BYTES, key_filter, may_hold


def filter_of(keys: list[str]) -> bytes:
    encoded = [key.encode() for key in keys]
    return key_filter(np.cumsum([0, *map(len, encoded)]), np.frombuffer(b"".join(encoded), np.uint8))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=200))
def test_no_key_is_denied(keys: list[str]) -> None:
    found = filter_of(keys)
    assert all(may_hold(found, key) for key in keys)


@pytest.mark.parametrize("pattern", ["C{:09d}", "{}", "2013-04-{0:02d}-UA-{0}", "{:x}" + "-" * 200 + "{:x}"])
def test_few_other_keys_are_claimed(pattern: str) -> None:
    keys = [pattern.format(number, number) for number in range(40_000)]
    found = filter_of(keys[:20_000])
    assert len(found) == pytest.approx(20_000 * 2, abs=GROUP_BYTES)
    assert sum(may_hold(found, key) for key in keys[20_000:]) < 20_000 / 500


def test_a_part_of_an_array_is_filtered_alone() -> None:
    data = np.frombuffer(b"abcdef", np.uint8)
    assert key_filter(np.array([2, 3, 5]), data) == filter_of(["c", "de"])


def test_the_filter_is_the_same_in_every_release() -> None:
    """Filters are stored: another hash would deny keys that are there."""
    assert filter_of(["C-1", "C-2", "Ünal"]).hex() == FROZEN


FROZEN = (
    "0000000000200800000800008004000000000000000210000000000000000020"
    "0000000000008000010020000200001001000000c0a000000000100100000010"
)
