"""A labelled CSV as rows to be fitted on, in bounded memory: of a large file a random sample is taken.

The types of the columns are inferred from their text as those of a reference are (`registry.reference`), and the cells
are converted by what converts the cells of a chunk (`registry.cells`), so that training and scoring see the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from errors import InvalidInput, Problem
from records.cutter import CsvCutter, pieces
from records.piece import Limits, Piece
from records.split import select
from registry import cells
from registry.parse import parse_csv
from registry.reference import infer_column
from registry.signature import Column, Signature
from training.rows import Rows, Times

_BLOCK = 1 << 20
_MAX_RECORD_BYTES = 64 << 20
#: A column is taken for the time only if it has this many different moments.
_FEWEST_MOMENTS = 10


@dataclass(frozen=True)
class Dataset:
    """The labelled rows of a file, and what was left out of it.

    Attributes:
        time: the column by which the rows are in order; it is no feature.
        read: records in the file; `sampled` how many of them were taken.
        notes: sentences about what was decided for the user.
    """

    rows: Rows
    time: str | None
    read: int
    sampled: int
    notes: list[str]


def read_labelled(  # each is an option of the command
    path: Path,
    *,
    target: str,
    key: str | None,
    time: str | None = None,
    find_time: bool = True,
    delimiter: str = ",",
    max_rows: int,
    seed: int,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Dataset:
    """Read a CSV with a header.

    Args:
        time: column with dates or times (ISO 8601); when None, the first column of them counts unless `find_time` is off.
        max_rows: of a file with more, so many are drawn at random; the same `seed` draws the same.
        tell: called with the number of rows read so far, and of all.

    Raises:
        InvalidInput: the file cannot be read, lacks a column, or has no labelled row.
    """
    header, count = _counted(path, delimiter)
    _check_names(header, target=target, key=key, time=time)
    data = _drawn(path, delimiter, count, wanted=min(count, max_rows), seed=seed, tell=tell)
    texts, unreadable = _texts(header, data, delimiter)
    notes = [f"{count:,} rows were read; {max_rows:,} of them were drawn at random"] if count > max_rows else []
    if unreadable:
        notes.append(f"{len(unreadable):,} rows cannot be read and were left out; the first: {unreadable[0].message}")
    texts, blank = _labelled(texts, target)
    if blank:
        notes.append(f"{blank:,} rows have no '{target}' and were left out")
    time, times = _times(texts, time, [target, key] if find_time else None)
    kept = [name for name in header if name not in (target, key, time)]
    columns = [infer_column(name, texts[name]) for name in kept]
    empty = [column.name for column in columns if not pc.sum(_present(texts[column.name])).as_py()]
    if empty:
        notes.append(f"columns without any value were left out: {', '.join(empty)}")
    columns = [column for column in columns if column.name not in empty]
    if not columns:
        raise InvalidInput(f"{path.name} has no column to learn from besides {', '.join(header)}")
    rows = Rows(
        Signature(columns=columns, key=key, target=target),
        pa.table({column.name: _typed(column, texts[column.name]) for column in columns}),
        pc.utf8_trim(texts[target], " \t"),
        None if key is None else texts[key],
        times,
    )
    return Dataset(rows, time, count, len(rows) + blank + len(unreadable), notes)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _pieces(path: Path, delimiter: str) -> tuple[CsvCutter, Iterator[Piece]]:
    cutter = CsvCutter(delimiter, Limits(max_record_bytes=_MAX_RECORD_BYTES))
    return cutter, pieces(cutter, _blocks(path))


def _counted(path: Path, delimiter: str) -> tuple[list[str], int]:
    cutter, found = _pieces(path, delimiter)
    count = sum(piece.rows for piece in found)
    if not count or cutter.columns is None:
        raise InvalidInput(f"{path.name} has a header and no rows; give it labelled rows")
    return cutter.columns, count


def _check_names(header: list[str], *, target: str, key: str | None, time: str | None) -> None:
    wanted = {"target": target, "key": key, "time": time}
    missing = {option: name for option, name in wanted.items() if name is not None and name not in header}
    if missing:
        problems = [
            Problem(f"--{option} names '{name}', which is no column", f"#/columns/{name}")
            for option, name in missing.items()
        ]
        raise InvalidInput(
            f"{'; '.join(problem.detail for problem in problems)}. The columns are {', '.join(header)}", problems
        )


def _drawn(
    path: Path, delimiter: str, count: int, *, wanted: int, seed: int, tell: Callable[[int, int], None]
) -> bytes:
    """The bytes of `wanted` of the records, in their order, each set of so many as likely as any other.

    How many fall into a piece is hypergeometric, so that no more than one piece is looked at.
    """
    random = np.random.default_rng(seed)
    parts: list[bytes] = []
    left, open_places = count, wanted
    for piece in _pieces(path, delimiter)[1]:
        take = (
            piece.rows
            if open_places == left
            else int(random.hypergeometric(piece.rows, left - piece.rows, open_places))
        )
        if take == piece.rows:
            parts.append(piece.data if piece.data.endswith(b"\n") else piece.data + b"\n")
        elif take:
            chosen = np.sort(random.choice(piece.rows, take, replace=False))
            parts.append(select(piece.data, chosen.tolist(), "csv", delimiter))
        left, open_places = left - piece.rows, open_places - take
        tell(count - left, count)
    return b"".join(parts)


def _texts(header: list[str], data: bytes, delimiter: str) -> tuple[dict[str, Any], list[Any]]:
    """The text of the cells by column, and the row errors of records with another number of fields."""
    as_text = Signature(columns=[Column(name=name, type="text", nullable=True) for name in header])
    parsed = parse_csv(
        data,
        header=header,
        delimiter=delimiter,
        signature=as_text,
        key_column=None,
        first_row=1,
        first_line=2,
        max_cell_chars=_MAX_RECORD_BYTES,
    )
    columns = {name: pc.fill_null(parsed.features.column(name).combine_chunks(), "") for name in header}
    return columns, parsed.errors


def _labelled(texts: dict[str, Any], target: str) -> tuple[dict[str, Any], int]:
    """Only the rows whose target is not blank, and how many had none."""
    known = pc.not_equal(pc.utf8_trim(texts[target], " \t"), "")
    blank = len(known) - int(pc.sum(known).as_py() or 0)
    if blank == len(known):
        raise InvalidInput(f"no row has a '{target}'; name another --target, or label some rows")
    return ({name: values.filter(known) for name, values in texts.items()} if blank else texts), blank


def _times(
    texts: dict[str, Any], name: str | None, other_parts: list[str | None] | None
) -> tuple[str | None, Times | None]:
    """The named column as times, or the first one that holds nothing else."""
    if name is not None:
        found, faults = cells.moments(Column(name=name, type="timestamp"), cells.nulled(texts[name]))
        if faults or found.null_count:
            told = next(iter(faults.values()))[1] if faults else f"column '{name}' has empty cells"
            raise InvalidInput(
                f"rows cannot be put in order by --time {name}: {told}; mend them, or name another column"
            )
        return name, _microseconds(found)
    if other_parts is None:
        return None, None
    for candidate, values in texts.items():
        if candidate in other_parts or not _looks_like_time(values):
            continue
        found, faults = cells.moments(Column(name=candidate, type="timestamp"), cells.nulled(values))
        if not faults and not found.null_count and len(pc.unique(found)) >= _FEWEST_MOMENTS:
            return candidate, _microseconds(found)
    return None, None


def _looks_like_time(texts: Any) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")).as_py())


def _microseconds(moments: Any) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = moments.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _present(texts: Any) -> Any:
    return pc.is_valid(cells.nulled(texts))


def _typed(column: Column, texts: Any) -> Any:
    values, faults = cells.from_texts(column, texts, _MAX_RECORD_BYTES)
    assert not faults, "the type was inferred from these very cells"
    return values
