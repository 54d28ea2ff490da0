"""Blue-green for the software: two whole stacks of two releases on one database, and nginx in front of one of them.

`switch` examines a stack, points nginx to it and looks whether clients now reach it; `rollback` goes back.
"""

from __future__ import annotations
