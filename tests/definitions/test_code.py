"""A function's code is known by what it computes: words and layout change nothing, everything else does."""

from __future__ import annotations

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
    "an indented place": "\n".join(f"    {line}" for line in PLAIN.splitlines()),
}

OTHER = {
    "a constant": PLAIN.replace("1.0", "2.0"),
    "the type of a constant": PLAIN.replace("1.0", "1"),
    "a column": PLAIN.replace('"event_type"', '"os"'),
    "a comparison": PLAIN.replace("==", "!="),
    "a further line": PLAIN.replace("    return", "    kind = kind[::-1]\n    return"),
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


def test_text_that_is_not_python_stands_for_itself() -> None:
    assert canonical_code("scale (2)!") == "scale (2)!"
    assert canonical_code("") == canonical_code("# nothing\n")


def test_the_form_is_pinned_since_stored_rows_depend_on_it() -> None:
    assert canonical_code("def f(x): return -x + 1") == (
        "FunctionDef(name='f',args=arguments(args=[arg(arg='x',),],),body=[Return(value=BinOp("
        "left=UnaryOp(op=USub(),operand=Name(id='x',ctx=Load(),),),op=Add(),right=Constant(value=1,),),),],)"
    )
