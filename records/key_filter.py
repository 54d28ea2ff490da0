"""A filter over the record keys of a block of predictions: may this key be in it, or is it certainly not?

It stands in for an index over keys. An entry per key costs more than storing the prediction itself, and is hardly ever
asked for; the filter costs two bytes per key, and to ask it reads 64 bytes of it, so that the blocks of a hundred million
predictions are asked in a fraction of a second. The filter is a blocked Bloom filter (Putze, Sanders and Singler, 2007,
"Cache-, hash- and space-efficient Bloom filters"): a key has its bits in one group of 512. About one key in 1,500 that is
not in the block is told to be, and never the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

GROUP_BYTES = 64
_GROUP_BITS = 8 * GROUP_BYTES
_BITS_PER_KEY = 16
_PROBES = 7  # bits of a key: nine bits of its hash each
# What tells ids apart stands at their end; keys of which more is alike cost false alarms, no more.
_HASHED_BYTES = 96

_U64 = npt.NDArray[np.uint64]
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@dataclass(frozen=True, slots=True)
class Probe:
    """Where to look for a key: in group `place % groups`, for all of the `bits`, counted from the lowest of each byte."""

    place: int
    bits: list[int]


def key_filter(offsets: npt.NDArray[Any], data: npt.NDArray[np.uint8]) -> bytes:
    """The filter of n keys: key i is `data[offsets[i]:offsets[i + 1]]`, UTF-8."""
    places, bits = _probes(_hashes(np.asarray(offsets, np.int64), data))
    groups = -(-len(places) * _BITS_PER_KEY // _GROUP_BITS)
    table = np.zeros(groups * _GROUP_BITS, np.bool_)
    table[(places % np.uint64(groups) * np.uint64(_GROUP_BITS))[:, None] + bits] = True
    return np.packbits(table, bitorder="little").tobytes()


def probe(key: str) -> Probe:
    text = np.frombuffer(key.encode(), np.uint8)
    places, bits = _probes(_hashes(np.array([0, len(text)]), text))
    return Probe(int(places[0]), bits[0].tolist())


def may_hold(filter: bytes, key: str) -> bool:
    """The question that `db/sql/predictions_of_key.sql` asks on the server."""
    wanted = probe(key)
    start = wanted.place % (len(filter) // GROUP_BYTES) * GROUP_BYTES
    group = int.from_bytes(filter[start : start + GROUP_BYTES], "little")
    return all(group >> bit & 1 for bit in wanted.bits)


def _probes(hashes: _U64) -> tuple[_U64, _U64]:
    """Places (n,) below 2**63, and bits (n, 7) below 512."""
    places = _mixed(hashes) >> np.uint64(1)
    source = _mixed(hashes ^ np.uint64(0x9E3779B97F4A7C15))
    shifts = np.arange(_PROBES, dtype=np.uint64) * np.uint64(9)
    return places, (source[:, None] >> shifts) & np.uint64(_GROUP_BITS - 1)


def _hashes(offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> _U64:
    """FNV-1a over the length and the last bytes of each key, all keys at once, byte by byte."""
    ends, lengths = offsets[1:], np.diff(offsets)
    hashes = (_FNV_OFFSET ^ lengths.astype(np.uint64)) * _FNV_PRIME
    for back in range(1, min(int(lengths.max(initial=0)), _HASHED_BYTES) + 1):
        long = lengths >= back
        if long.all():
            hashes = (hashes ^ data[ends - back]) * _FNV_PRIME
        else:
            hashes[long] = (hashes[long] ^ data[ends[long] - back]) * _FNV_PRIME
    return hashes


def _mixed(values: _U64) -> _U64:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each bit of the input moves half of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
