"""Signatures that people edit: what comes out goes in again, and what is wrong in them is told by place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from errors import InvalidInput, InvalidPackage
from registry.examine import Package, examine
from registry.signature_file import dump, parse

FRAME = pd.DataFrame(
    {"amount": [1.5, 2.5, 3.5, 4.5] * 10, "size": ["no", "yes", "no", "1.0"] * 10, "late": [0, 0, 1, 1] * 10}
)


def amounts(frame: pd.DataFrame) -> Any:
    return np.nan_to_num(frame[["amount"]].to_numpy() * 1.0)


MODEL = make_pipeline(FunctionTransformer(amounts), LogisticRegression()).fit(FRAME[["amount", "size"]], FRAME["late"])


def examined(tmp_path: Path, signature: str | None, frame: pd.DataFrame = FRAME, model: Any = MODEL) -> Package:
    artefact, reference = tmp_path / "model.joblib", tmp_path / "reference.csv"
    joblib.dump(model, artefact)
    frame.to_csv(reference, index=False)
    digest = "sha256:" + hashlib.sha256(artefact.read_bytes()).hexdigest()
    edited = None if signature is None else parse(signature)
    return examine(
        artefact, format="joblib", digest=digest, reference=reference, key=None, target="late", edited=edited
    )


def test_what_is_written_reads_as_what_it_was(tmp_path: Path) -> None:
    signature = examined(tmp_path, None).signature
    text = dump(signature.model_dump(mode="json"), "About: this")
    assert text.startswith("# About: this\nkey: null\ntarget: late\ncolumns:\n- name: amount\n")
    assert parse(text).columns == signature.columns
    assert examined(tmp_path, text).signature == signature
    assert signature.columns[1].categories == ["1.0", "no", "yes"]


def test_an_edited_column_is_kept_and_completed(tmp_path: Path) -> None:
    edited = """
        columns:
        - {name: size, type: category, categories: ["yes", "no", "maybe", "1.0"]}
        - {name: amount, type: number, nullable: true, maximum: 100}
    """
    amount, size = examined(tmp_path, edited).signature.columns  # in the order of the reference
    assert (amount.nullable, amount.minimum, amount.maximum) == (True, 1.5, 100)
    assert size.categories == ["1.0", "maybe", "no", "yes"]


@pytest.mark.parametrize(
    ("text", "pointer", "told"),
    [
        ("{", "#/signature", "no YAML"),
        ("[]", "#/signature", "dictionary"),
        ("columns: []", "#/signature/columns", "at least 1"),
        ("columns: [{name: a, type: float}]", "#/signature/columns/0/type", "'number', 'integer'"),
        ("columns: [{name: a, type: number, nulable: true}]", "#/signature/columns/0/nulable", "not permitted"),
        ("columns: [{name: no, type: number}]", "#/signature/columns/0/name", "put it in quotes"),
        (
            "columns: [{name: a, type: category, categories: [no]}]",
            "#/signature/columns/0/categories/0",
            "put it in quotes",
        ),
        ("columns: [{name: a, type: number, categories: [x]}]", "#/signature/columns", "has categories; remove"),
        ("columns: [{name: a, type: text, minimum: 1}]", "#/signature/columns", "has a minimum"),
        ("columns: [{name: a, type: number, minimum: 2, maximum: 1}]", "#/signature/columns", "swap them"),
        ("columns: [{name: a, type: number}, {name: a, type: text}]", "#/signature", "twice: a"),
        ("{target: a, columns: [{name: a, type: number}]}", "#/signature", "cannot be an input"),
        ('columns: [{name: "a\\0", type: number}]', "#/signature", "NUL"),
        ("{output: {}, columns: [{name: a, type: number}]}", "#/signature/output", "not permitted"),
    ],
)
def test_what_is_wrong_is_told_by_place(text: str, pointer: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert caught.value.problems[0].pointer == pointer
    assert told in str(caught.value) + caught.value.problems[0].detail


BOTH = "[{name: amount, type: number}, {name: size, type: category}]"


@pytest.mark.parametrize(
    ("columns", "frame", "pointer", "told"),
    [
        ("[{name: amount, type: number}]", FRAME, "#/columns/size", "'size' is missing"),
        (f"{BOTH[:-1]}, {{name: more, type: text}}]", FRAME, "#/columns/more", "takes no column 'more'"),
        (BOTH.replace("number", "integer"), FRAME, "#/columns/amount", "40 rows of the reference do not parse, the first on line 2"),
        (BOTH, FRAME.assign(amount=[None, 2.5, 3.5, 4.5] * 10), "#/columns/amount", "let it be nullable"),
        (BOTH.replace("category", "category, categories: ['no']"), FRAME, "#/columns/size", "holds '1.0', which is not among"),
        (BOTH.replace("number", "number, minimum: 2"), FRAME, "#/columns/amount", "beyond the minimum 2"),
    ],
)  # fmt: skip
def test_a_signature_that_does_not_suit_is_told_by_column(
    tmp_path: Path, columns: str, frame: pd.DataFrame, pointer: str, told: str
) -> None:
    with pytest.raises(InvalidPackage) as caught:
        examined(tmp_path, f"columns: {columns}", frame)
    assert caught.value.problems[0].pointer == pointer
    assert any(told in problem.detail for problem in caught.value.problems)


def test_a_signature_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="in any form"):
        examined(tmp_path, f"columns: {BOTH.replace('number', 'text')}")


def test_a_column_may_be_nullable_only_if_the_model_takes_nulls(tmp_path: Path) -> None:
    nullable = BOTH.replace("category", "category, nullable: true")
    assert examined(tmp_path, f"columns: {nullable}").signature.columns[1].nullable
    numbers = FRAME[["amount", "late"]]
    model = LogisticRegression().fit(numbers[["amount"]], numbers["late"])
    with pytest.raises(InvalidPackage, match="the model raises when it is empty") as caught:
        examined(tmp_path, "columns: [{name: amount, type: number, nullable: true}]", numbers, model)
    assert [problem.pointer for problem in caught.value.problems] == ["#/columns/amount"]
