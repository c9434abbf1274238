"""The child of `models.trial`: loads a graph from standard input and scores it, within limits that it sets on itself.

Run by its path, so that nothing of this package is imported. Arguments: type and width of the input, bytes, seconds.
"""

from __future__ import annotations

import resource
import sys


def main() -> None:
    kind, width, bytes_max, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    content = sys.stdin.buffer.read()
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import numpy as np
    import onnxruntime as ort

    if sys.platform == "linux":  # elsewhere, only the time is limited
        resource.setrlimit(resource.RLIMIT_DATA, (bytes_max, bytes_max))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for rows in (1, 16):
            session.run(None, {name: np.full((rows, width), 0.5, kind)})
            session.run(None, {name: np.full((rows, width), np.nan, kind)})
    except Exception as error:  # whatever it is, the parent says it
        sys.exit(f"{type(error).__name__}: {str(error)[:400]}")


main()
