"""What an answer depends on to its last bit, besides the model and its input.

Measured (12 kinds of scikit-learn models, and ONNX): the same call, in any process with these versions on such a
processor, gives the same bits. Another number of rows in the call may not: up to 3e-15 in double precision, 3e-7 in
single. So golden rows are expected as one call of all of them answers.
"""

from __future__ import annotations

import platform

import numpy as np
from threadpoolctl import threadpool_info

from registry.scores import Runtime


def environment(runtime: Runtime) -> dict[str, str]:
    """Versions by library, of Python, and of what numerical code picks its instructions by."""
    config = np.show_config(mode="dicts") or {}
    instructions = config.get("SIMD Extensions", {}).get("found", [])
    blas = {
        f"{found['internal_api']} {found['version']} {found.get('architecture', '?')} on {found['num_threads']} threads"
        for found in threadpool_info()
        if found["user_api"] == "blas"
    }
    return {
        "python": platform.python_version(),
        **runtime.libraries(),
        "processor": " ".join([platform.machine(), *instructions]),
        "blas": ", ".join(sorted(blas)),
    }
