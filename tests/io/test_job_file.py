"""YAML files and `--set` to settings, and what is said about a mistake."""

from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from cropray.core.errors import ConfigError
from cropray.core.fingerprint import fingerprint
from cropray.core.settings import Settings
from cropray.io.job_file import dump_yaml, load_settings


class Optimizer(Settings):
    learning_rate: float = Field(default=0.01, gt=0)
    kind: Literal["adam", "sgd"] = "adam"


class Job(Settings):
    name: str
    zones: tuple[str, ...] | None = None
    optimizer: Optimizer = Optimizer()
    extra: Optimizer | None = None
    many: tuple[Optimizer, ...] = ()


def load(tmp_path, text, *overrides):
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(Job, path, overrides)


def test_a_file_becomes_settings(tmp_path):
    job = load(tmp_path, "name: a\nzones: [x, y]\noptimizer: {kind: sgd}\n")
    assert job == Job(name="a", zones=("x", "y"), optimizer=Optimizer(kind="sgd"))


def test_a_number_in_exponent_form_is_a_number(tmp_path):
    # PyYAML follows YAML 1.1 and reads `1e-3` as text; it must not stay text.
    assert load(tmp_path, "{name: a, optimizer: {learning_rate: 1e-3}}").optimizer.learning_rate == 0.001
    assert load(tmp_path, "name: a", "optimizer.learning_rate=1e-3").optimizer.learning_rate == 0.001


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=b", Job(name="b")),
        ("zones=[x,y]", Job(name="a", zones=("x", "y"))),
        ("zones=", Job(name="a")),  # nothing is null
        ("optimizer.kind=sgd", Job(name="a", optimizer=Optimizer(kind="sgd"))),
        ("extra.kind=sgd", Job(name="a", extra=Optimizer(kind="sgd"))),  # a section that the file lacks
        ("name=x=y", Job(name="x=y")),  # only the first = divides
    ],
)
def test_set_changes_one_value(tmp_path, override, expected):
    assert load(tmp_path, "name: a\nextra:\n", override) == expected


def test_a_key_may_stand_in_what_is_merged_and_in_another_mapping(tmp_path):
    text = "name: a\nextra: &one {kind: sgd, learning_rate: 1}\noptimizer: {<<: *one, kind: adam}\nmany: [*one, *one]\n"
    job = load(tmp_path, text)
    assert job.optimizer == Optimizer(kind="adam", learning_rate=1)
    assert job.many == (Optimizer(kind="sgd", learning_rate=1),) * 2


def test_the_last_set_wins(tmp_path):
    assert load(tmp_path, "name: a", "name=b", "name=c").name == "c"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name: a\nzone: [x]", [], "unknown key 'zone'; did you mean 'zones'"),
        ("name: a\nqqq: 1", [], "known keys: extra, many, name, optimizer, zones"),
        ("name: a\noptimizer: {learning_rat: 1}", [], "'optimizer.learning_rat'; did you mean 'learning_rate'"),
        ("name: a\nextra: {kinds: sgd}", [], "'extra.kinds'; did you mean 'kind'"),
        ("name: a\nmany: [{kinds: sgd}]", [], r"'many\.0\.kinds'; did you mean 'kind'"),
        ("name: a", ["optimiser.kind=sgd"], "'optimiser'; did you mean 'optimizer'"),
        ("zones: [x]", [], "'name' is required"),
        ("name: a\noptimizer: {learning_rate: -1}", [], r"'optimizer.learning_rate': .*greater than 0 \(got -1\)"),
        ("name: a\noptimizer: {kind: lion}", [], r"'adam' or 'sgd' \(got 'lion'\)"),
        ("name: a\nzone: 1\noptimizer: {kind: lion}", [], "'optimizer.kind'.*; unknown key 'zone'"),
        ("name: 2023-07-01", [], r"'name': .* valid string \(got 2023-07-01\); put it in quotes"),
        ("name: a", ["zones=[12, b]"], r"'zones\.0': .* \(got 12\); put it in quotes"),
        ("name: a", ["optimizer"], "is not of the form a.b=value"),
        ("name: a", ["=1"], "is not of the form a.b=value"),
        ("name: a", ["zones=[x"], "not valid YAML"),
        ("name: a", ["name.first=b"], "'name' is a single value, it has no 'first'"),
        ("- a", [], "must hold 'key: value' lines; found list"),
        ("", [], "must hold 'key: value' lines; found NoneType"),
        ("name: [", [], "not valid YAML"),
        ("name: a\nzones: [x]\n\nname: b", [], r"job\.yaml.*the key 'name' stands twice, in lines 1 and 4"),
        ("name: a\noptimizer:\n  kind: sgd\n  kind: sgd", [], "the key 'kind' stands twice, in lines 3 and 4"),
        ("name: a\nmany: [{kind: sgd, kind: adam}]", [], "the key 'kind' stands twice, in lines 2 and 2"),
        ("name: a\nextra: &x {kind: sgd, <<: {}, <<: {}}", [], "the key '<<' stands twice"),
        ("name: a", ["optimizer={kind: sgd, kind: adam}"], "--set 'optimizer=.*the key 'kind' stands twice"),
    ],
)
def test_a_mistake_is_explained(tmp_path, text, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, *overrides)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml' does not exist"):
        load_settings(Job, tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(Job, tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(Job, tmp_path / "latin.yaml")


JOBS = st.builds(
    Job,
    name=st.text(st.characters(codec="utf-8"), min_size=1),
    zones=st.none() | st.lists(st.sampled_from(["1e3", "null", "yes", "beauce-1"])).map(tuple),
    optimizer=st.builds(Optimizer, learning_rate=st.floats(1e-9, 1e9), kind=st.sampled_from(["adam", "sgd"])),
)


@given(JOBS)
@example(Job(name="a\x85b"))
@example(Job(name=" \u2028\u2029"))
def test_yaml_reads_back_as_it_was_written(tmp_path_factory, job):
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(dump_yaml(job), encoding="utf-8", newline="")
    assert load_settings(Job, path) == job


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Job(name="a").name = "b"


def test_a_fingerprint_is_of_the_content():
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert Job(name="a").fingerprint() == Job(name="a", optimizer=Optimizer(learning_rate=0.01)).fingerprint()
    assert Job(name="a").fingerprint() != Job(name="a", zones=()).fingerprint()
