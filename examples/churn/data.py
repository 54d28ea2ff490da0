"""Customers of an invented phone company, as many as wanted: the same seed gives the same customers.

Each customer depends on the seed and on a block of customers only, so a file of ten million rows can be made in pieces
and its beginning equals a smaller file. Two quirks of real customer data are kept: a customer of the first month has no
`total_charges` yet, and churn is noisy, so no model predicts it fully.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from errors import InvalidInput
from examples.package import Columns

BLOCK = 100_000
"""Customers per block; each block has a random generator of its own."""

CONTRACTS = ["month-to-month", "one year", "two year"]
INTERNET = ["dsl", "fiber optic", "none"]
PAYMENTS = ["bank transfer", "credit card", "electronic check", "mailed check"]
REGIONS = ["central", "east", "north", "south", "west"]

COLUMNS = Columns(
    key="customer_id",
    categories=["contract_type", "internet_service", "payment_method", "region"],
    numbers=["tenure", "monthly_charges", "total_charges", "support_calls"],  # months, money, money, calls a year
    label="churn",
)


def customers(rows: int, seed: int = 0) -> pd.DataFrame:
    """The first `rows` customers: `customer_id`, the features of `COLUMNS`, and `churn` (0 or 1).

    Raises:
        InvalidInput: `rows` is less than 1.
    """
    if rows < 1:
        raise InvalidInput(f"rows is {rows}: expected 1 or more")
    table: pd.DataFrame = pa.concat_tables(blocks(rows, seed)).to_pandas()
    return table


def blocks(rows: int, seed: int = 0) -> Iterator[pa.Table]:
    """The same customers as `customers`, as Arrow tables of at most `BLOCK` rows, one at a time."""
    for number, first in enumerate(range(0, rows, BLOCK)):
        yield _block(number, seed).slice(0, min(BLOCK, rows - first))


def _block(number: int, seed: int) -> pa.Table:
    random = np.random.default_rng([seed, number])
    drawn = _draw(random)
    churn = random.random(BLOCK) < _churn_probability(drawn)
    return pa.table(
        {
            "customer_id": _keys(number),
            "contract_type": _words(drawn["contract"], CONTRACTS),
            "internet_service": _words(drawn["internet"], INTERNET),
            "payment_method": _words(drawn["payment"], PAYMENTS),
            "region": _words(drawn["region"], REGIONS),
            "tenure": drawn["tenure"],
            "monthly_charges": drawn["monthly"],
            "total_charges": pa.array(drawn["total"], mask=drawn["tenure"] == 0),
            "support_calls": drawn["calls"],
            "churn": churn.astype(np.int64),
        }
    )


def _draw(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Everything about a block of customers but whether they leave; categories as positions in their lists."""
    contract = random.choice(3, BLOCK, p=[0.55, 0.21, 0.24])
    internet = random.choice(3, BLOCK, p=[0.34, 0.44, 0.22])
    tenure = np.minimum(random.geometric(0.03, BLOCK) - 1 + 6 * contract, 72)
    monthly = np.round(20 + np.array([30, 55, 0])[internet] + random.gamma(2.0, 6.0, BLOCK), 2)
    return {
        "contract": contract,
        "internet": internet,
        "tenure": tenure,
        "monthly": monthly,
        "total": np.round(monthly * tenure * random.normal(1.0, 0.04, BLOCK), 2),
        "payment": random.choice(4, BLOCK, p=[0.22, 0.22, 0.33, 0.23]),
        "region": random.integers(0, len(REGIONS), BLOCK),
        "calls": random.poisson(1.0 + 0.8 * (internet == 1), BLOCK),
    }


def _churn_probability(drawn: dict[str, np.ndarray]) -> np.ndarray:
    """Short contracts, short tenure, high charges and calls drive customers away; with fiber a call weighs double."""
    score: np.ndarray = (
        np.array([0.4, -1.2, -2.4])[drawn["contract"]]
        + 0.5 * (drawn["payment"] == 2)
        - 0.035 * drawn["tenure"]
        + 0.02 * (drawn["monthly"] - 65)
        + np.where(drawn["internet"] == 1, 0.4, 0.2) * drawn["calls"]
        - 0.9
    )
    return np.asarray(1 / (1 + np.exp(-score)))


def _keys(number: int) -> pa.Array:
    ids = pa.array(np.arange(number * BLOCK + 1, (number + 1) * BLOCK + 1)).cast(pa.string())
    return pc.binary_join_element_wise("C", pc.utf8_lpad(ids, 10, "0"), "")


def _words(codes: np.ndarray, words: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words)).cast(pa.string())
