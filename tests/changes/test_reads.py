"""What a function reads for each of its outputs, read off its text: exactly where it is plain, else too much."""

from __future__ import annotations

from textwrap import indent

import pytest

from actor_risk.changes.reads import reads_of

COLUMNS = ("event_type", "amount_usd", "ip", "device_id")


def made(body: str) -> dict[str, set[str]]:
    reads = reads_of(f"@decorated(x=1)\ndef view(events):\n{body}", COLUMNS)
    assert reads.is_whole
    return {name: set(names) for name, names in reads.made.items()}


def test_each_output_is_followed_to_the_columns_that_it_is_made_from() -> None:
    found = made(
        '    """Says so."""\n'
        "    import numpy as np\n"
        '    kind = events["event_type"]\n'
        '    click = kind == "click"\n'
        '    return {"click": np.where(click, 1.0, np.nan), "usd": np.where(click, events.get("amount_usd", 0), 0)}\n'
    )
    assert found == {"click": {"event_type"}, "usd": {"event_type", "amount_usd"}}


def test_outputs_may_be_made_for_words_that_are_written_out() -> None:
    found = made(
        '    marks = ("payment", "appeal")\n'
        '    return {"who": events["ip"], **{mark: events["event_type"] == mark for mark in marks}}\n'
    )
    assert found == {"who": {"ip"}, "payment": {"event_type"}, "appeal": {"event_type"}}


def test_outputs_may_be_filled_into_a_dict_one_by_one() -> None:
    found = made(
        "    out = {}\n"
        '    for name in ("ip", "device_id"):\n'
        '        out["known_" + "x"] if False else None\n'
        '        out[name] = events[name] == "x"\n'
        '    if events["amount_usd"].any():\n'
        '        out["paid"] = 1\n'
        "    return out\n"
    )
    assert found == {"ip": {"ip", "device_id"}, "device_id": {"ip", "device_id"}, "paid": {"amount_usd"}}


def test_local_functions_and_several_returns_are_followed() -> None:
    found = made(
        "    def ratio(a, b):\n"
        '        return a / b if len(events["ip"]) else a\n'
        '    if len(events["event_type"]) == 0:\n'
        '        return {"share": 0}\n'
        '    return {"share": ratio(events["amount_usd"], 2)}\n'
    )
    assert found == {"share": {"event_type", "amount_usd", "ip"}}


ROUNDABOUT = {
    "a list that is filled": 'out = []\nfor one in events["ip"]:\n    out.append(one)\nreturn {"out": out}',
    "a list that is filled after it is given": (
        'out = []\ngiven = {"out": out}\nfor one in events["ip"]:\n    out.append(one)\nreturn given'
    ),
    "a list that is filled by another name": (
        'out = []\nsame = out\nfor one in events["ip"]:\n    same.append(one)\nreturn {"out": out}'
    ),
    "an array whose parts are set": 'out = zeros()\nout[1:] = events["ip"]\nreturn {"out": out}',
    "an array that a call fills": 'import numpy\nout = zeros()\nnumpy.copyto(out, events["ip"])\nreturn {"out": out}',
    "one branch": 'out = events["ip"]\nif later():\n    out = 1\nreturn {"out": out}',
    "what is done on a failure": 'try:\n    out = 1\nexcept KeyError:\n    out = events["ip"]\nreturn {"out": out}',
    "the turn before": 'last = 0\nfor one in x:\n    out = last\n    last = events["ip"]\nreturn {"out": out}',
    "what a turn is left out for": (
        'out = []\nfor i in x:\n    if events["ip"][i]:\n        continue\n    out.append(i)\nreturn {"out": out}'
    ),
    "a name that an expression gives": 'return {"out": (it := events["ip"]), "it": it}',
    "what is put into the columns": 'events["new"] = events["ip"]\nreturn {"out": events["new"]}',
    "a function that fills what is around it": (
        'out = []\ndef add(one):\n    out.append(one)\nadd(events["ip"])\nreturn {"out": out}'
    ),
    "one of several returns": 'if x:\n    return made(events["ip"])\nreturn {"out": 1}',
    "a sum": 'out = 0\nout += events["ip"]\nreturn {"out": out}',
    "what stands for a while": 'with opened(events["ip"]) as out:\n    pass\nreturn {"out": out}',
}


@pytest.mark.parametrize("body", ROUNDABOUT.values(), ids=ROUNDABOUT)
def test_whatever_way_an_output_is_made_no_input_of_it_is_missed(body: str) -> None:
    reads = reads_of("def view(events):\n" + indent(body, "    "), COLUMNS)
    assert "ip" in (reads.of("out") or ())


def test_an_output_stays_apart_from_what_another_is_made_from() -> None:
    found = made(
        "    ips, paid = [], 0\n"
        '    for one in events["ip"]:\n'
        "        ips.append(one)\n"
        '    paid += events["amount_usd"].sum()\n'
        '    return {"ips": ips, "paid": paid}\n'
    )
    assert found == {"ips": {"ip"}, "paid": {"amount_usd"}}


def test_what_is_not_followed_may_be_passed_on_as_it_is() -> None:
    reads = reads_of('def view(events):\n    return {**made(events["ip"])}', COLUMNS)
    assert reads.of("device_id") == frozenset({"ip", "device_id"})


def test_what_is_passed_on_as_it_is_is_not_made() -> None:
    reads = reads_of('def view(events):\n    return {**events, "a": events["ip"]}', COLUMNS)
    assert reads.of("a") == frozenset({"ip"})
    assert reads.of("device_id") is None


@pytest.mark.parametrize(
    "body",
    [
        'return compute(events["ip"], events["amount_usd"])',
        'return {k + "_x": events["ip"] for k in unknown} | {"b": events["amount_usd"]}',
        'out = dict(zip(names, [events["ip"], events["amount_usd"]]))\n    return out',
        'out = {}\n    out[unknown] = events["ip"]\n    x = events["amount_usd"]\n    return out',
    ],
)
def test_where_it_is_not_plain_an_output_is_made_from_all_that_is_mentioned(body: str) -> None:
    reads = reads_of(f"def view(events):\n    {body}", COLUMNS)
    assert not reads.is_whole
    assert reads.of("anything") == frozenset({"ip", "amount_usd"})


def test_a_parameter_that_is_handed_on_whole_may_be_read_whole() -> None:
    reads = reads_of('def view(events):\n    return {"a": helper(events)}', COLUMNS)
    assert reads.of("a") == frozenset(COLUMNS)


def test_what_is_no_function_may_read_everything() -> None:
    for text in ("def view(", "x = 1", "def view():\n    return {}"):
        assert reads_of(text, COLUMNS).of("a") == frozenset(COLUMNS)
