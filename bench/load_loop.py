"""The compiled loop of the load: it sends requests, reads answers and notes when, for some microseconds of CPU each.

What happens seldom (a connection that has to be opened anew, a log that is full) it leaves to who called it, by
returning, and is called again. Times are nanoseconds of CLOCK_MONOTONIC. For Linux 5.11 and glibc 2.35, or later.
"""

from __future__ import annotations

import platform
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

CHUNKED, UNTIL_CLOSED = -1, -2
"""Bodies whose length is not told: in chunks, of which the last is empty; and until the connection is closed."""
HEAD_BYTES_MAX, PIECE_BYTES, EVENTS_MAX = 8_192, 65_536, 256
OVER, MEND, GROW, INTERRUPTED = range(4)
"""Why the loop returns: all is done; connections are broken; the log is full; a signal came, or waiting failed."""

(FD, BUSY, OPEN, MAY_RESEND, BEGAN, SENT, TURN, STATUS, LEFT, HEAD_SIZE, AGAIN, CONN_WIDTH) = range(12)
"""Of a connection. BUSY: a request is under way. OPEN: another may be sent. MAY_RESEND: the one under way may be sent
once more, as nothing of an answer has come and it has not been sent twice. TURN: which request. STATUS: of the answer
whose head has come, else 0. LEFT: bytes of the body to come, or one of the two above. AGAIN: of a broken one, whether
its request is to be sent once more."""

(TURNS, IDLE, BROKEN, FRESH, ARRIVED, TAKEN, LOGGED, LOST, RESENT, UNDER_WAY, END, DEADLINE, TICK, NEXT_TICK) = range(
    STATE_WIDTH := 14
)
"""TURNS: requests sent. IDLE, BROKEN, FRESH: how many are in the list of this name. ARRIVED, TAKEN: of the due requests
those whose time has come, and those that a connection has taken. END: nothing is sent from then on in a closed loop; 0
in an open one. DEADLINE: nothing is waited for."""

_NS_PER_S = 1_000_000_000
_MONOTONIC, _DONT_WAIT, _NO_SIGNAL, _ERROR_OR_GONE = 1, 0x40, 0x4000, 0x8 | 0x10
EVENT_WIDTH, _EVENT_FD = (3, 1) if platform.machine() == "x86_64" else (4, 2)
"""`struct epoll_event` in int32: only x86-64 packs it."""

_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))
_epoll_pwait2 = types.ExternalFunction(
    "epoll_pwait2", types.int32(types.int32, types.uintp, types.int32, types.uintp, types.uintp)
)
_send = types.ExternalFunction("send", types.int64(types.int32, types.uintp, types.uintp, types.int32))
_recv = types.ExternalFunction("recv", types.int64(types.int32, types.uintp, types.uintp, types.int32))

Array = np.ndarray[Any, Any]
_loop = numba.njit(cache=True, nogil=True)


class Load(NamedTuple):
    """What the loop works on.

    conns         int64[C, CONN_WIDTH] connections
    state         int64[STATE_WIDTH] all else that is one number
    by_fd         int32: file → connection
    idle, broken, fresh  int32[C]: connections that may send, that are to be opened anew, and that just were
    requests, ends  all requests as uint8, one behind the other, and where each ends, int64
    due           int64[D] ascending times, of an open loop
    log           int64[N, 4]: status, BEGAN, SENT, and when the last piece of the answer was read
    heads, piece  uint8[C, HEAD_BYTES_MAX] of answers, of chunked ones then the end so far; uint8[PIECE_BYTES]
    events, clock  int32[EVENTS_MAX * EVENT_WIDTH] of epoll; int64[2], a `struct timespec`
    """

    conns: Array
    state: Array
    by_fd: Array
    idle: Array
    broken: Array
    fresh: Array
    requests: Array
    ends: Array
    due: Array
    log: Array
    heads: Array
    piece: Array
    events: Array
    clock: Array


@_loop
def _now_ns(load: Load) -> int:
    _clock_gettime(np.int32(_MONOTONIC), load.clock.ctypes.data)
    return load.clock[0] * _NS_PER_S + load.clock[1]


@_loop
def run(poll: int, load: Load) -> int:
    """Go on until one of the reasons to return. `poll`: the file of an epoll that has all connections."""
    state, due, events, clock = load.state, load.due, load.events, load.clock
    for i in range(state[FRESH]):
        _ready(load, load.fresh[i])
    state[FRESH] = 0
    while True:
        now_ns = _now_ns(load)
        if state[ARRIVED] < due.size and now_ns >= max(due[state[ARRIVED]], state[NEXT_TICK]):
            _arrive(load, now_ns)
            state[NEXT_TICK] = now_ns + state[TICK]
        if state[BROKEN]:
            return MEND
        if state[LOGGED] + EVENTS_MAX > load.log.shape[0]:
            return GROW
        if now_ns >= state[DEADLINE] or _is_done(load, now_ns):
            return OVER
        until_ns = state[DEADLINE]
        if state[ARRIVED] < due.size:
            until_ns = max(due[state[ARRIVED]], state[NEXT_TICK])
        elif now_ns < state[END]:
            until_ns = state[END]
        wait_ns = max(0, until_ns - now_ns)
        clock[0], clock[1] = wait_ns // _NS_PER_S, wait_ns % _NS_PER_S
        found = _epoll_pwait2(np.int32(poll), events.ctypes.data, np.int32(EVENTS_MAX), clock.ctypes.data, np.uintp(0))
        if found < 0:
            return INTERRUPTED
        for e in range(found):
            is_gone = (events[e * EVENT_WIDTH] & _ERROR_OR_GONE) != 0
            _read(load, load.by_fd[events[e * EVENT_WIDTH + _EVENT_FD]], is_gone)


@_loop
def _is_done(load: Load, now_ns: int) -> bool:
    state = load.state
    if state[END]:
        return now_ns >= state[END] and state[UNDER_WAY] == 0
    return state[LOGGED] + state[LOST] >= load.due.size


@_loop
def _arrive(load: Load, now_ns: int) -> None:
    """Send what is due, as far as there are connections: the one used last first, whose memory is still at hand."""
    state, due = load.state, load.due
    while state[ARRIVED] < due.size and due[state[ARRIVED]] <= now_ns:
        state[ARRIVED] += 1
    while state[IDLE] and state[TAKEN] < state[ARRIVED]:
        state[IDLE] -= 1
        _take(load, load.idle[state[IDLE]])


@_loop
def _take(load: Load, k: int) -> None:
    """Send on a connection what has been due for longest."""
    due_ns = load.due[load.state[TAKEN]]
    load.state[TAKEN] += 1
    _ask(load, k, due_ns, _now_ns(load))


@_loop
def _ready(load: Load, k: int) -> None:
    """A connection may send: the next request of a closed loop, or what waits for one in an open loop."""
    state = load.state
    if state[END]:
        now_ns = _now_ns(load)
        if now_ns < state[END]:
            _ask(load, k, now_ns, now_ns)
    elif state[TAKEN] < state[ARRIVED]:
        _take(load, k)
    else:
        load.idle[state[IDLE]] = k
        state[IDLE] += 1


@_loop
def _ask(load: Load, k: int, began_ns: int, now_ns: int) -> None:
    conn, state, ends = load.conns[k], load.state, load.ends
    turn = state[TURNS] % ends.size
    state[TURNS] += 1
    state[UNDER_WAY] += 1
    conn[BUSY], conn[MAY_RESEND], conn[TURN] = 1, 1, turn
    conn[BEGAN], conn[SENT] = began_ns, now_ns
    begin = 0 if turn == 0 else ends[turn - 1]
    size, address = ends[turn] - begin, load.requests.ctypes.data + np.uintp(begin)
    if _send(np.int32(conn[FD]), address, np.uintp(size), np.int32(_NO_SIGNAL)) != size:
        _lose(load, k)


@_loop
def _lose(load: Load, k: int) -> None:
    """A connection is no more, with or without a request under way."""
    conn, state = load.conns[k], load.state
    conn[AGAIN] = conn[BUSY] and conn[MAY_RESEND]
    if conn[AGAIN]:
        state[RESENT] += 1
    elif conn[BUSY]:
        state[LOST] += 1
        state[UNDER_WAY] -= 1
        conn[BUSY] = 0
    _retire(load, k)


@_loop
def _retire(load: Load, k: int) -> None:
    load.conns[k, OPEN] = 0
    load.broken[load.state[BROKEN]] = k
    load.state[BROKEN] += 1


@_loop
def _read(load: Load, k: int, is_gone: bool) -> None:
    """Take what has come on a connection."""
    conn, state = load.conns[k], load.state
    if not (conn[OPEN] or conn[BUSY]) or conn[AGAIN]:
        return  # it is to be opened anew already
    size = _recv(np.int32(conn[FD]), load.piece.ctypes.data, np.uintp(PIECE_BYTES), np.int32(_DONT_WAIT))
    came_ns = _now_ns(load)
    if size < 0 and not is_gone:
        return
    if not conn[BUSY]:  # its end, or an answer that nobody asked for, such as that the server waits no longer
        _leave_idle(load, k)
        _lose(load, k)
        return
    if size > 0:
        conn[MAY_RESEND] = 0
        begin = 0 if conn[STATUS] else _read_head(load, k, load.piece[:size])
        is_broken = begin < 0
        is_whole = not is_broken and conn[STATUS] != 0 and _read_body(load, k, load.piece[begin:size])
    else:
        is_whole = size == 0 and conn[STATUS] != 0 and conn[LEFT] == UNTIL_CLOSED
        is_broken = not is_whole
    if is_broken:
        _lose(load, k)
    if not is_whole:
        return
    entry = load.log[state[LOGGED]]
    entry[0], entry[1], entry[2], entry[3] = conn[STATUS], conn[BEGAN], conn[SENT], came_ns
    state[LOGGED] += 1
    state[UNDER_WAY] -= 1
    conn[BUSY], conn[STATUS], conn[HEAD_SIZE] = 0, 0, 0
    if conn[OPEN]:
        _ready(load, k)
    else:
        _retire(load, k)


@_loop
def _leave_idle(load: Load, k: int) -> None:
    kept = 0
    for i in range(load.state[IDLE]):
        if load.idle[i] != k:
            load.idle[kept] = load.idle[i]
            kept += 1
    load.state[IDLE] = kept


@_loop
def _read_head(load: Load, k: int, piece: Array) -> int:
    """Where the body begins in a piece: at its end while the head is not there yet; −1 for a head that is too long."""
    conn, head = load.conns[k], load.heads[k]
    before = conn[HEAD_SIZE]
    size = min(before + piece.size, HEAD_BYTES_MAX)
    head[before:size] = piece[: size - before]
    conn[HEAD_SIZE] = size
    for end in range(max(before - 3, 0), size - 3):
        if head[end] == 13 and head[end + 1] == 10 and head[end + 2] == 13 and head[end + 3] == 10:
            break
    else:
        return -1 if size == HEAD_BYTES_MAX else piece.size
    conn[STATUS] = (head[9] - 48) * 100 + (head[10] - 48) * 10 + (head[11] - 48)
    length_at = _after(head[:end], b"\r\ncontent-length:")
    if length_at:
        conn[LEFT] = 0
        for i in range(length_at, end):
            if head[i] == 13:
                break
            if head[i] != 32:
                conn[LEFT] = conn[LEFT] * 10 + (head[i] - 48)
    else:
        conn[LEFT] = CHUNKED if _after(head[:end], b"\r\ntransfer-encoding: chunked") else UNTIL_CLOSED
    if conn[LEFT] == UNTIL_CLOSED or _after(head[:end], b"\r\nconnection: close"):
        conn[OPEN] = 0
    conn[HEAD_SIZE] = 0
    return end + 4 - before


@_loop
def _after(head: Array, wanted: bytes) -> int:
    """Where what follows `wanted`, in small letters, begins in a head; 0 if it is not there."""
    for begin in range(head.size - len(wanted) + 1):
        for i in range(len(wanted)):
            letter = head[begin + i]
            if letter + (32 if 65 <= letter <= 90 else 0) != wanted[i]:
                break
        else:
            return begin + len(wanted)
    return 0


@_loop
def _read_body(load: Load, k: int, piece: Array) -> bool:
    """Whether the body is whole with this piece of it. What comes behind it is a reason to ask nothing more here."""
    conn = load.conns[k]
    if conn[LEFT] >= 0:
        conn[LEFT] -= piece.size
        if conn[LEFT] < 0:
            conn[OPEN], conn[LEFT] = 0, 0
        return conn[LEFT] == 0
    return conn[LEFT] == CHUNKED and _is_last_chunk(conn, piece, load.heads[k])


@_loop
def _is_last_chunk(conn: Array, piece: Array, last: Array) -> bool:
    """Whether the body ends, with an empty chunk. `last`: the up to seven bytes that came last."""
    for i in range(max(0, piece.size - 7), piece.size):
        if conn[HEAD_SIZE] == 7:
            for n in range(6):
                last[n] = last[n + 1]
            conn[HEAD_SIZE] = 6
        last[conn[HEAD_SIZE]] = piece[i]
        conn[HEAD_SIZE] += 1
    size, end = conn[HEAD_SIZE], b"\r\n0\r\n\r\n"
    is_last = size in (5, 7)
    for i in range(size):
        is_last = is_last and last[i] == end[7 - size + i]
    return is_last
