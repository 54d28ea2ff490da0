"""The distributions of a report: each column in the reference and in a window, in as many bars as can be told apart.

Both profiles have the bins of one schema, some hundreds of them; neighbouring bins are put together where both hold
least, so that bars are narrow where the values are. What never became a value has a bar too: a column that is suddenly
null is the drift that one looks for first. No ML library is imported here; the labels are callers' text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from monitoring.profile import ColumnProfile, Profile
from monitoring.report import MAX_BARS, Distribution
from monitoring.schema import CategoryColumn, NumericColumn
from monitoring.values import Counts, Floats
from registry.row_text import shortened
from registry.signature import ColumnType

# Of the bars, those that stand for no bin between the edges: below, above, null and unreadable; or other, unseen, null, unreadable.
_SPECIAL_BARS = 4
_LABEL_CHARS = 80
# Floats beyond this are no longer told apart as integers.
_LARGEST_INTEGER = 2.0**53

#: A label, and the counts of the reference and of the window.
Bar = tuple[str, int, int]


def distributions(reference: Profile, current: Profile) -> Mapping[str, Distribution]:
    """By name of the column; at most MAX_BARS bars each, none for a column without any cell."""
    names = [column.name for column in reference.schema.columns]
    return {name: _distribution(reference.column(name), current.column(name)) for name in names}


def _distribution(reference: ColumnProfile, current: ColumnProfile) -> Distribution:
    column = reference.column
    if isinstance(column, CategoryColumn):
        bars = [*_categories(column, reference.bins, current.bins), *_faults(reference, current)]
    else:
        bars = [*_intervals(column, reference, current), *_faults(reference, current)]
    return Distribution(
        labels=[label for label, _, _ in bars],
        reference=[before for _, before, _ in bars],
        current=[now for _, _, now in bars],
        ordered=isinstance(column, NumericColumn),
    )


def _intervals(column: NumericColumn, reference: ColumnProfile, current: ColumnProfile) -> Iterator[Bar]:
    """The tails, which lie outside of the reference, are never put together with what lies within."""
    filled = np.flatnonzero(reference.bins + current.bins)
    tails = (filled == 0) | (filled == column.bins - 1)
    inner = filled[~tails]
    mass = _shares(reference.bins)[inner] + _shares(current.bins)[inner]
    runs = [(int(place), int(place)) for place in filled[tails]] + [
        (int(inner[first]), int(inner[last])) for first, last in _runs(mass, MAX_BARS - _SPECIAL_BARS)
    ]
    # The open tails reach as far as the values do.
    lowest, highest = min(reference.minimum, current.minimum), max(reference.maximum, current.maximum)
    bounds = [lowest, *column.edges, math.nextafter(highest, math.inf)]
    for first, last in sorted(runs):
        within = slice(first, last + 1)
        label = _interval(column.type, bounds[first], bounds[last + 1])
        yield label, int(reference.bins[within].sum()), int(current.bins[within].sum())


def _runs(mass: Floats, most: int) -> Iterator[tuple[int, int]]:
    """First and last of at most `most` runs of neighbours that have about equal mass; a heavy one is not divided."""
    if len(mass) <= most:
        yield from ((place, place) for place in range(len(mass)))
        return
    ends = np.cumsum(mass)
    run = np.minimum((ends - mass / 2) / ends[-1] * most, most - 1).astype(np.int64)
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    yield from zip(starts.tolist(), [*(starts[1:] - 1).tolist(), len(mass) - 1], strict=True)


def _categories(column: CategoryColumn, reference: Counts, current: Counts) -> Iterator[Bar]:
    """The most frequent ones in the order of the schema, then all the others of the reference, then the unseen ones."""
    kept, known = MAX_BARS - _SPECIAL_BARS, len(column.categories)
    mass = (_shares(reference) + _shares(current))[:known]
    chosen = np.sort(np.argsort(-mass, kind="stable")[:kept])
    for place in chosen.tolist():
        yield shortened(column.categories[place], _LABEL_CHARS), int(reference[place]), int(current[place])
    left = np.append(np.setdiff1d(np.arange(known), chosen), known)
    words = known - len(chosen) + len(column.others)
    if words:
        yield f"({words:,} other{'s' if words > 1 else ''})", int(reference[left].sum()), int(current[left].sum())
    if current[column.unseen]:
        yield "(unseen)", int(reference[column.unseen]), int(current[column.unseen])


def _faults(reference: ColumnProfile, current: ColumnProfile) -> Iterator[Bar]:
    null, unreadable = (
        [found.nulls + found.missing for found in (reference, current)],
        [found.non_finite + found.type_errors for found in (reference, current)],
    )
    for label, (before, now) in (("(null)", null), ("(unreadable)", unreadable)):
        if before or now:
            yield label, before, now


def _interval(type: ColumnType, low: float, high: float) -> str:
    """The values from `low` to below `high`; one name for a bin of a single value."""
    if type in ("integer", "text") and max(abs(low), abs(high)) < _LARGEST_INTEGER:
        first, last = str(math.ceil(low)), str(math.ceil(high) - 1)
    elif type == "timestamp":
        first, last = _moment(low), _moment(high)
    else:
        first, last = _number(low), _number(high)
    told = first if first == last else f"{first} to {last}"
    return f"{told} characters" if type == "text" else told


def _number(value: float) -> str:
    """The next float after 0, which ends the bin of 0 alone, is 0 to a reader."""
    return f"{value if abs(value) >= sys.float_info.min else 0.0:.6g}"


def _moment(seconds: float) -> str:
    return str(np.datetime64(int(seconds), "s"))[:16].replace("T", " ")


def _shares(counts: Counts) -> Floats:
    shares: Floats = counts / max(int(counts.sum()), 1)
    return shares
