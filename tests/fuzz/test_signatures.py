"""Edited signatures, and references to infer one from, of any text: a signature, or an answer that says what is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import csv_inputs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import InvalidInput, InvalidPackage
from registry.reference import read_reference
from registry.signature_file import dump, parse

BASE = """key: id
target: late
columns:
  - {name: a, type: number, nullable: true, minimum: 0, maximum: 1}
  - {name: b, type: category, categories: [x, y]}
"""
# What YAML gives a meaning to, and what its constructors trip over.
WORDS = [
    "2001-99-99", "!!timestamp 9", "!!int abc", "!!int 0b", "!!float abc", "!!bool x", "!!binary '?'", "!!set {a}",
    "!!python/object/apply:os.system [id]", "!<tag:yaml.org,2002:str> x", "&a [*a]", "*a", "<<: *x", "{a: 1}: 2",
    "? [a]\n: b", "[" * 500, "{a: " * 500, "%YAML 9.9\n", "---\n", "...\n", "'", '"', "\\u0000", "\0", "\ud800",
    "\ufeff", "|\n", "\t", "0x", "1_000", "60:60:60", ".inf", ".nan", "1e999", "9" * 5_000, "~", "#", "- ", ": ",
    "no", "\u2028", "\x85", "!!omap [a: 1]", "!!pairs [a]", "!!null x", "null",
]  # fmt: skip


def told(refusal: InvalidInput) -> None:
    """It says where, and it can be answered and logged."""
    assert [problem.pointer.encode() for problem in refusal.problems]
    assert str(refusal).encode()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10**9), edits=st.integers(1, 4))
def test_an_edited_signature_is_taken_or_told(seed: int, edits: int) -> None:
    chance = random.Random(seed)
    text = BASE
    for _ in range(edits):
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice([*WORDS, ""]) + text[place + chance.choice([0, 0, 1, 9]) :]
    try:
        found = parse(text)
    except InvalidInput as refusal:
        told(refusal)
        return
    assert parse(dump({**found.model_dump(mode="json")}, "again")) == found


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 10_000, "- " * 50_000, "!!bool x", "!!int 0b", "2001-99-99"])
def test_what_yaml_cannot_construct_is_told(text: str) -> None:
    with pytest.raises(InvalidInput, match="signature"):
        parse(text)


def test_aliases_that_multiply_are_not_multiplied_out() -> None:
    levels = "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(InvalidInput) as caught:
        parse(f"a: &a [x]\n{levels}columns: [*i]\n")
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("number", range(60))
def test_a_reference_of_any_bytes_is_read_or_told(tmp_path: Path, number: int) -> None:
    each = csv_inputs.make(11, number)
    (tmp_path / "reference.csv").write_bytes(each.body)
    try:
        found = read_reference(tmp_path / "reference.csv", each.delimiter)
    except (InvalidInput, InvalidPackage) as refusal:
        str(refusal).encode()
        return
    assert found.header
