"""An ASGI application behind a real HTTP server on a free port, in a thread."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import uvicorn

STARTED_WITHIN_S = 20.0
ANSWERED_WITHIN_S = 10.0


@contextmanager
def listening(app: Any, **options: Any) -> Iterator[str]:
    """Where the application answers, `http://…`. `options`: of uvicorn's Config."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + STARTED_WITHIN_S
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STARTED_WITHIN_S)


def posted(url: str, body: Any) -> bytes:
    """What is answered to a JSON body, with status 200, by no client of ours. An application answers in the event loop
    of its server alone: whoever asks it from another one may wait for ever."""
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=ANSWERED_WITHIN_S) as answer:
        assert answer.status == 200
        found: bytes = answer.read()
        return found
