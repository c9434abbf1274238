"""A function's code is known by what it computes: words and layout change nothing, everything else does."""

from __future__ import annotations

import re

import pytest

from materialize.definitions import canonical_code

PLAIN = """
@stream_feature_view(entities=[ip], description="What an IP does.")
def stats(events):
    kind = events["event_type"]
    return {"click": np.where(kind == "click", 1.0, np.nan)}
"""

SAME = {
    "a comment": PLAIN.replace("    return", "    # counted once each\n    return"),
    "another decorator": PLAIN.replace('description="What an IP does."', 'owner="ads", tags={"tier": "1"}'),
    "no decorator": PLAIN.partition("\n@")[0] + "def stats" + PLAIN.partition("def stats")[2],
    "a docstring": PLAIN.replace("(events):\n", '(events):\n    """Marks clicks."""\n'),
    "annotations": PLAIN.replace("(events):", "(events: Columns) -> Columns:"),
    "layout": PLAIN.replace('{"click": ', "{\n        'click':\n            ").replace("nan)}", "nan,),\n    }"),
    "brackets": PLAIN.replace('kind == "click"', '(kind == "click")'),
    "a local name": PLAIN.replace("kind", "what"),
    "the name of what it is given": PLAIN.replace("events", "columns"),
    "an indented place": "\n".join(f"    {line}" for line in PLAIN.splitlines()),
}

OTHER = {
    "a constant": PLAIN.replace("1.0", "2.0"),
    "the type of a constant": PLAIN.replace("1.0", "1"),
    "a column": PLAIN.replace('"event_type"', '"os"'),
    "a comparison": PLAIN.replace("==", "!="),
    "a further line": PLAIN.replace("    return", "    kind = kind[::-1]\n    return"),
    "a name that is not its own": PLAIN.replace("np.where", "numpy.where"),
    "a default": PLAIN.replace("(events)", "(events, scale=2)"),
    "a decorator within": PLAIN.replace("    return", "    @twice\n    def same(x): return x\n    return"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_what_computes_the_same_has_one_form(text: str) -> None:
    assert canonical_code(text) == canonical_code(PLAIN)


@pytest.mark.parametrize("text", OTHER.values(), ids=OTHER)
def test_what_computes_something_else_has_another(text: str) -> None:
    assert canonical_code(text) != canonical_code(PLAIN)


def test_one_docstring_within_is_as_little_as_the_outer_one() -> None:
    inner = "def f(x):\n    def g(y):\n        {}return y\n    return g(x)\n"
    assert canonical_code(inner.format('"words"\n        ')) == canonical_code(inner.format(""))


SCOPES = """
def stats(events):
    import numpy as np
    import math
    from operator import add as plus
    seen = [mark for mark in events if mark]
    def ratio(above, below):
        kept = above
        return [None if not b else a / b for a, b in zip(kept, below, strict=True)]
    try:
        with np.errstate() as state:
            for place, (first, *rest) in enumerate(seen):
                seen[place] += first
    except ValueError as error:
        seen = {str(error): plus(math.pi, 1)}
    return {"clicks of today": ratio(seen, rest), "last": (lambda one, *more: one)(state)}
"""
LOCAL = [
    *("np", "math", "plus", "seen", "mark", "ratio", "above", "below", "kept", "a", "b"),
    *("state", "place", "first", "rest", "error", "one", "more", "events"),
]


@pytest.mark.parametrize("name", LOCAL)
def test_a_name_that_is_local_says_nothing(name: str) -> None:
    other = re.sub(rf'(?<![."])\b{name}\b(?!")', "renamed", SCOPES).replace(
        "import renamed\n", f"import {name} as renamed\n"
    )
    assert other != SCOPES
    assert canonical_code(other) == canonical_code(SCOPES)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("def f(x):\n    y = x\n    return eval(x)", "y"),
        ("def f(x):\n    y = x\n    return locals()", "y"),
        ("def f(x):\n    y = x\n    return x.query('a > @y')", "y"),
        ("def f(x):\n    y = x\n    return x.pick('a > @y')", "y"),
        ("def f(x):\n    y = x\n    return f'{y=}'", "y"),
        ("def f(x):\n    def g(y): return y\n    return g(y=x)", "y"),
        ("def f(x):\n    def g(y): return y\n    return g(**x)", "y"),
        ("def f(x):\n    from inspect import stack\n    y = stack()\n    return y", "y"),
        ("def f(x):\n    class y: pass\n    return y", "y"),
        ("def f(x):\n    y = x\n    def g():\n        nonlocal y\n        y = 1\n    return g", "y"),
        ("def f(x):\n    return x[y]", "y"),
        ("def f(x):\n    return x.y", "y"),
        ("def f(x):\n    return x['y']", "y"),
        ("def f(x):\n    from y import z\n    return z(x)", "y"),
    ],
)
def test_a_name_that_may_be_looked_at_or_is_not_local_counts(text: str, name: str) -> None:
    assert canonical_code(re.sub(rf"\b{name}\b", "other", text)) != canonical_code(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a, b = x\n    return a", "a, b = x\n    return b"),
        ("a = 1\n    return [a for b in x]", "a = 1\n    return [b for b in x]"),
        ("a = 1\n    def g(b): return a\n    return g", "a = 1\n    def g(b): return b\n    return g"),
        ("y = [x for x in x]\n    return x", "y = [z for z in x]\n    return y"),
    ],
)
def test_names_that_are_not_the_same_stay_apart(one: str, other: str) -> None:
    assert canonical_code(f"def f(x):\n    {one}") != canonical_code(f"def f(x):\n    {other}")


def test_a_docstring_that_mentions_a_name_keeps_it_from_nothing() -> None:
    with_words = PLAIN.replace("(events):\n", '(events):\n    """Of each kind and of its events."""\n')
    assert canonical_code(with_words.replace("kind =", "what =").replace("kind ==", "what ==")) == canonical_code(PLAIN)


def test_text_that_is_not_python_stands_for_itself() -> None:
    assert canonical_code("scale (2)!") == "scale (2)!"
    assert canonical_code("") == canonical_code("# nothing\n")


def test_the_form_is_pinned_since_stored_rows_depend_on_it() -> None:
    assert canonical_code("def f(x): return -x + 1") == (
        "FunctionDef(name='f',args=arguments(args=[arg(arg='%1',),],),body=[Return(value=BinOp("
        "left=UnaryOp(op=USub(),operand=Name(id='%1',ctx=Load(),),),op=Add(),right=Constant(value=1,),),),],)"
    )
