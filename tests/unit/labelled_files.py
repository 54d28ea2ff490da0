"""Small labelled files for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def people(rows: int, seed: int = 3) -> pd.DataFrame:
    """Every type of column, with gaps, and targets of each kind: `left` (0, 1), `shade` (three words), `price` (a number)."""
    random = np.random.default_rng(seed)
    amount = random.normal(50, 20, rows).round(2)
    visits = random.integers(0, 30, rows)
    region = random.choice(np.array(["north", "south", "N/A", None], dtype=object), rows, p=[0.5, 0.3, 0.1, 0.1])
    active = random.random(rows) < 0.6
    score = amount / 20 - 2.5 + (region == "north") - active + random.normal(0, 0.7, rows)
    return pd.DataFrame(
        {
            "id": [f"p{number:05}" for number in range(rows)],
            "amount": pd.Series(amount).mask(random.random(rows) < 0.05),
            "visits": visits,
            "region": region,
            "active": active,
            "note": [f"remark {number}" for number in range(rows)],
            "empty": None,
            "day": pd.date_range("2024-01-01", periods=rows, freq="h").strftime("%Y-%m-%d %H:%M"),
            "left": (score > 0).astype(int),
            "shade": np.select([score > 0.7, score < -0.7], ["dark", "light"], "middle"),
            "price": (3 + 2 * amount - visits + random.normal(0, 1, rows)).round(3),
        }
    )


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path
