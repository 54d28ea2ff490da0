"""The way from a stored chunk to typed rows: `parse_csv`, `parse_ndjson`, and what they give."""

from __future__ import annotations

from registry.parse_csv import parse_csv
from registry.parse_ndjson import parse_ndjson
from registry.parsed import Parsed

__all__ = ["Parsed", "parse_csv", "parse_ndjson"]
