import csv
import itertools
import re
from importlib import resources

import pytest

from cropray.legend import (
    EXCLUDED,
    IGNORE,
    CropClass,
    Legend,
    bundled_legend,
    legend_from_names,
    legend_from_records,
)

LEGEND = bundled_legend()
LEVEL1 = {"Field crops", "Grassland", "Orchards", "Special crops", "Forest"}


def code_table():
    text = resources.files("cropray").joinpath("data", "rpg_codes.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def rgb(colour):
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def test_every_class_has_a_code_and_every_code_a_class():
    mapped = {name for _, name in LEGEND.codes} - {EXCLUDED}
    assert mapped == set(LEGEND.names)
    assert len(LEGEND.codes) == len({code for code, _ in LEGEND.codes}) == 373


def test_the_three_levels_form_a_tree():
    assert {crop.level1 for crop in LEGEND.classes} == LEVEL1
    parent = {}
    for crop in LEGEND.classes:
        assert parent.setdefault(crop.level2, crop.level1) == crop.level1


def test_names_are_keys_and_labels_are_texts():
    for crop in LEGEND.classes:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", crop.name)
        assert crop.label_en.strip()
        assert crop.label_fr.strip()


def test_colours_can_be_told_apart():
    assert all(re.fullmatch(r"#[0-9a-f]{6}", crop.colour) for crop in LEGEND.classes)
    for one, other in itertools.combinations(LEGEND.classes, 2):
        distance = sum((a - b) ** 2 for a, b in zip(rgb(one.colour), rgb(other.colour), strict=True)) ** 0.5
        assert distance > 25, (one.name, other.name)  # of 441; smaller steps look alike in a printed legend


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("BTH", "WinterWheat"),
        ("BDH", "DurumWheat"),  # French extension: no class of its own in Zurich
        ("TTH", "Wheat"),  # the tree calls triticale so
        ("MIS", "Maize"),
        ("MIE", "Maize"),
        ("LUZ", "Alfalfa"),
        ("PAG", "Legumes"),  # its note holds commas that a careless reader takes for columns
        ("PPH", "Meadow"),
        ("OLI", "Olive"),
        ("RIZ", "Rice"),
    ],
)
def test_codes_map_to_the_extended_tree(code, name):
    assert LEGEND.names[LEGEND.class_id_of_code()[code]] == name


@pytest.mark.parametrize("code", ["CSS", "SNE", "VNL", "ZZZ"])
def test_codes_that_must_not_be_trained_on_are_ignored(code):
    assert LEGEND.class_id_of_code()[code] == IGNORE


def test_an_unlisted_code_is_unknown():
    assert "XYZ" not in LEGEND.class_id_of_code()


def test_the_code_table_is_well_formed():
    for row in code_table():
        assert row["use_in_2023"] in {"yes", "unlikely"}
        assert row["group_code"].isdigit()
        assert row["label_fr"]


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("rpg_samples/rpg2022_100/PARCELLES_GRAPHIQUES.gpkg", "code_cultu"),
        ("rpg_samples/bretagne_739/VT_final.shp", "CODE_CULTU"),
        ("flanders_chips/parcels.gpkg", "CODE_CULTU"),
    ],
)
def test_real_registers_hold_known_codes_only(real_data, file, column):
    pyogrio = pytest.importorskip("pyogrio")
    codes = set(pyogrio.read_dataframe(real_data / file, columns=[column], read_geometry=False)[column])
    assert codes
    assert codes <= set(LEGEND.class_id_of_code())


def test_records_read_back():
    again = legend_from_records(LEGEND.to_records())
    assert again.classes == LEGEND.classes
    assert again.codes == ()


def test_the_hash_follows_classes_and_codes():
    swapped = tuple((code, EXCLUDED if code == "BTH" else name) for code, name in LEGEND.codes)
    assert Legend(LEGEND.classes, swapped).hash() != LEGEND.hash()
    assert Legend(LEGEND.classes, LEGEND.codes).hash() == LEGEND.hash()


def test_a_flat_legend_keeps_order():
    legend = legend_from_names(["corn", "rice", "other"])
    assert legend.names == ("corn", "rice", "other")
    assert [crop.id for crop in legend.classes] == [0, 1, 2]
    assert len({crop.colour for crop in legend.classes}) == 3


def crop(class_id, name):
    return CropClass(class_id, name, name, name, name, name, "#000000")


@pytest.mark.parametrize(
    ("classes", "codes", "message"),
    [
        ([crop(1, "a")], [], "0, 1, 2"),
        ([crop(0, "a"), crop(1, "a")], [], "different names"),
        ([crop(0, "a")], [("X", "b")], "legend lacks"),
        ([crop(i, f"c{i}") for i in range(256)], [], "at most 255"),
    ],
)
def test_a_broken_legend_is_refused(classes, codes, message):
    with pytest.raises(ValueError, match=message):
        Legend(tuple(classes), tuple(codes))
