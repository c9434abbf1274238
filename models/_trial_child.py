"""The child of `models.trial`: loads a graph from standard input and scores it, within limits that it sets on itself.

Run by its path, so that nothing of this package is imported. Arguments: type and width of the input, rows, bytes,
seconds.
"""

from __future__ import annotations

import resource
import sys


def main() -> None:
    kind = sys.argv[1]
    width, rows_max, bytes_max, seconds = map(int, sys.argv[2:])
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
        for rows, value in ((1, 0.5), (1, np.nan), (16, 0.5), (16, np.nan), (rows_max, 0.5)):
            session.run(None, {name: np.full((rows, width), value, kind)})
    except Exception as error:  # whatever it is, the parent says it
        sys.exit(f"{type(error).__name__}: {str(error)[:400]}")


main()
