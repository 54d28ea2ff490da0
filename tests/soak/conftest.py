"""The soak's own parts, and those of the fault tests that it stands on."""

from __future__ import annotations

import sys
from pathlib import Path

for _folder in ("faults/models", "faults", "soak"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))
