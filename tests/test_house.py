"""The figures of the house are exact, and nobody outside a family's folder names it."""

import ast

import pytest

from cropray.training.family import FamilySettings, family
from tests.benchmarks.house import (
    WAYS,
    Module,
    arrows,
    bodies,
    circles,
    climbs,
    families,
    file_arrows,
    knowing_the_cube,
    modules,
    naming_families,
    reduced,
    way,
    words,
)


def module(name, text):
    return Module(name, text, ast.parse(text))


def test_no_family_is_named_outside_its_folder():
    named, allowed = naming_families(modules(), families())
    assert named == []
    assert {place.partition(":")[0] for place in allowed} <= {
        "training/family.py",
        "commands/demo.py",
        "report/study.py",
    }


def test_families_are_the_folders_that_have_one():
    assert {"cnn", "xgboost"} <= set(families())


def test_planning_and_stages_read_no_field_of_a_family():
    own = {field for name in families() for field in family(name).settings.model_fields}
    own -= {
        *FamilySettings.model_fields,
        "device",
        "pool",
        "max_failures",
        "sampler",
        "loss",
    }  # map.device, pools of workers, search's own, and what every family is scored by
    rooms = [
        module for module in modules() if module.room in ("planning", "stages") and module.name != "commands/demo.py"
    ]
    assert [f"{each.name}:{line}" for each in rooms for line, word in words(each.tree) if word in own] == []


@pytest.mark.parametrize(
    "text",
    [
        "model = 'willow'",
        "def f(willow_px): ...",
        "from cropray.training.willow.fit import fit",
        "from cropray.training import willow as w",
        "job.willow",
        "f(willow=1)",
        "class WillowSettings: ...",
        "{'a': f'{x} of willow'}",
    ],
)
def test_each_way_to_name_a_family_is_seen(text):
    named, _ = naming_families([module("commands/plan/command.py", text)], ["willow"])
    assert len(named) == 1
    assert named[0].startswith("commands/plan/command.py:1 ")
    assert naming_families([module("training/willow/fit.py", text)], ["willow"]) == ([], [])


def test_docstrings_comments_libraries_and_lists_of_families_are_not_meant():
    text = '"""Willow."""\nimport willow as w\nx: int = 1\n"""As in willow."""\n# willow\n'
    assert naming_families([module("commands/plan/command.py", text)], ["willow"]) == ([], [])
    listed = module(
        "training/family.py", "from typing import Final\n_BUILT_IN: Final = (\n    'willow',\n)\nx = 'willow'"
    )
    assert naming_families([listed], ["willow"]) == (["training/family.py:5 willow"], ["training/family.py:3 willow"])


def test_rooms_arrows_and_circles():
    house = [
        module("__init__.py", "from cropray.a import x"),
        module("a.py", "import cropray.b.deep\nimport os"),
        module("b/deep.py", "def f():\n    from cropray.c import x\n    from cropray.b import other"),
        module("c.py", "from cropray import a"),
        module("d.py", "from cropray.a import x"),
    ]
    graph = arrows(house)
    assert graph == {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(graph) == ["a ⇄ b ⇄ c"]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_arrows_that_others_imply_are_left_out_of_the_figure():
    assert reduced({"a": {"b", "c", "d"}, "b": {"c"}, "c": set(), "d": {"c"}}) == {
        "a": {"b", "d"}, "b": {"c"}, "c": set(), "d": {"c"},
    }  # fmt: skip


def test_circles_of_files_are_seen_in_late_imports_and_in_those_of_types():
    house = [
        module("a/x.py", "def f():\n    from cropray.a.y import g"),
        module("a/y.py", "if TYPE_CHECKING:\n    from cropray.a import x"),
        module("a/z.py", "import cropray.a.x"),
    ]
    assert circles(file_arrows(house)) == ["a/x.py ⇄ a/y.py"]


def test_an_argument_is_followed_with_what_it_holds():
    house = [
        module(
            "a.py",
            "from cropray.b import g, h\ndef f(job):\n    g(1, job.size)\n    h(own=job)\n    k(job)\n    g(2, 3)",
        ),
        module("b.py", "from cropray.c import j\ndef g(n, size):\n    return j(size)\ndef h(own):\n    return h(own)"),
        module("c.py", "def j(size): ..."),
    ]
    files = list(way(house, "a.py", "f", "job"))
    assert files == ["a.py", "b.py", "c.py", "b.py", "a.py", "b.py", "a.py"]
    assert climbs(files) == 2
    assert climbs(["a.py", "a.py"]) == 0


def test_a_job_is_read_where_its_stage_begins():
    house = modules()
    assert {start: climbs(way(house, *start)) for start in WAYS if climbs(way(house, *start)) > 5} == {}


def test_bodies_without_docstrings():
    text = (
        'def f():\n    """One.\n\n    Two."""\n    x = 1\n\n    return x\n\ndef g(): ...\n\ndef h():\n    """Only."""\n'
    )
    assert list(bodies([module("a.py", text)]).values()) == [3, 1, 0]


@pytest.mark.parametrize(
    ("text", "knows"),
    [
        ("n_months = 12", True),
        ("x = y[:4]  # bands", True),
        ("from cropray.cube import N_FEATURES", True),
        ("size = 12", False),
        ("n_months = 11", False),
        ("'''The 12 months.'''", False),
    ],
)
def test_who_knows_the_size_of_the_cube(text, knows):
    assert knowing_the_cube([module("a.py", text)]) == (["a.py"] if knows else [])
    assert knowing_the_cube([module("core/cube.py", text)]) == []
