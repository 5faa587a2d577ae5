import csv
import itertools
import json
import re
from dataclasses import replace
from importlib import resources

import pytest

from cropray.core.legend import (
    EXCLUDED,
    FIRST_YEAR,
    IGNORE,
    LAST_YEAR,
    CropClass,
    CropCode,
    Legend,
    bundled_legend,
    legend_from_names,
)

LEGEND = bundled_legend()
YEARS = range(FIRST_YEAR, LAST_YEAR + 1)
LEVEL1 = {"Field crops", "Grassland", "Orchards", "Special crops", "Forest"}


def code_table():
    text = resources.files("cropray").joinpath("data", "rpg_codes.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def rgb(colour):
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def test_every_class_has_a_code_and_every_code_a_class():
    mapped = {year: {crop.class_name for crop in LEGEND.codes_of(year).values()} - {EXCLUDED} for year in YEARS}
    assert mapped[2015] == set(LEGEND.names)
    assert set(LEGEND.names) - mapped[2023] == {"Beets", "Chicory"}  # all beets are BTN since, chicory has no code left
    assert len({crop.code for crop in LEGEND.codes}) == 373


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
    assert LEGEND.names[LEGEND.class_id_of_code(LEGEND.years_of(code)[1])[code]] == name


@pytest.mark.parametrize("code", ["CSS", "SNE", "VNL", "ZZZ"])
def test_codes_that_must_not_be_trained_on_are_ignored(code):
    assert LEGEND.class_id_of_code(2023)[code] == IGNORE


def test_an_unlisted_code_is_unknown():
    assert LEGEND.years_of("XYZ") is None
    assert all("XYZ" not in LEGEND.class_id_of_code(year) for year in YEARS)


def test_2023_added_21_codes_and_withdrew_others():
    before, after = set(LEGEND.codes_of(2022)), set(LEGEND.codes_of(2023))
    assert len(after - before) == 21
    assert {"JAC", "FVP", "PHS", "MDI"} <= after - before
    assert {"MIE", "J5M", "J6S", "PRL", "RGA"} <= before - after
    assert {"MIS", "BTH", "PPH"} <= before & after
    assert (LEGEND.years_of("JAC"), LEGEND.years_of("MIE"), LEGEND.years_of("BTH")) == (
        (2023, 2024),
        (2015, 2022),
        (2015, 2024),
    )


def test_2023_changed_what_codes_mean():
    before, after = LEGEND.codes_of(2022), LEGEND.codes_of(2023)
    assert (before["BTN"].label, after["BTN"].label) == ("Betterave non fourragère / Bette", "Betterave")
    assert (before["OHR"].class_name, after["OHR"].class_name) == ("WinterRapeseed", "OtherOilseed")
    assert sum(before[code].label != after[code].label for code in before.keys() & after.keys()) == 62


@pytest.mark.parametrize("years", [(2015, 2022), (2023, 2024)])
def test_the_table_is_the_same_between_changes(years):
    tables = [LEGEND.codes_of(year) for year in range(years[0], years[1] + 1)]
    assert all(table == tables[0] for table in tables)


def test_no_year_of_a_code_is_left_out():
    for one, other in itertools.pairwise(LEGEND.codes):
        assert one.code != other.code or other.first_year == one.last_year + 1


def test_the_code_table_is_well_formed():
    for row in code_table():
        assert FIRST_YEAR <= int(row["first_year"]) <= int(row["last_year"]) <= LAST_YEAR
        assert row["group_code"].isdigit()
        assert row["label_fr"]


@pytest.mark.parametrize(
    ("file", "column", "year"),
    [
        ("rpg_samples/rpg2022_100/PARCELLES_GRAPHIQUES.gpkg", "code_cultu", 2022),
        ("rpg_samples/bretagne_739/VT_final.shp", "CODE_CULTU", 2019),
        ("flanders_chips/parcels.gpkg", "CODE_CULTU", 2018),
        ("flanders_chips/parcels.gpkg", "CODE_CULTU", 2019),
    ],
)
def test_real_registers_hold_known_codes_only(real_data, file, column, year):
    pyogrio = pytest.importorskip("pyogrio")
    codes = set(pyogrio.read_dataframe(real_data / file, columns=[column], read_geometry=False)[column])
    assert codes
    assert codes <= set(LEGEND.class_id_of_code(year))


def test_the_hash_follows_classes_and_codes():
    swapped = tuple(replace(crop, class_name=EXCLUDED) if crop.code == "BTH" else crop for crop in LEGEND.codes)
    earlier = tuple(replace(crop, last_year=2023) if crop.code == "BTH" else crop for crop in LEGEND.codes)
    worded = tuple(replace(crop, label="Blé") if crop.code == "BTH" else crop for crop in LEGEND.codes)
    assert Legend(LEGEND.classes, swapped).hash() != LEGEND.hash()
    assert Legend(LEGEND.classes, earlier).hash() != LEGEND.hash()
    assert Legend(LEGEND.classes, worded).hash() == LEGEND.hash()


def test_the_french_legend_is_still_the_same():
    assert LEGEND.hash() == "1a722ef3429dbb6dbe81c0d6c65be1a5b567b8ce6da3d87c4017179e574eaaf0"
    assert set(LEGEND.to_records()[0]) == {"id", "name", "level1", "level2", "label_en", "label_fr", "colour"}
    assert LEGEND.class_id_of_code(2023, ["3301010101", "BTH"]) == LEGEND.class_id_of_code(2023)


def test_more_levels_than_two_are_kept_in_records():
    one = replace(LEGEND.classes[0], more_levels=("fine", "finer"))
    assert one.levels == (one.level1, one.level2, "fine", "finer")
    assert CropClass(**json.loads(json.dumps(one.to_record()))) == one
    assert Legend((one,)).hash() != Legend(LEGEND.classes[:1]).hash()


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
        ([crop(0, "a")], [CropCode("X", "b")], "legend lacks"),
        ([crop(0, "a")], [CropCode("X", "a", 2015, 2022), CropCode("X", "a", 2022, 2024)], "one meaning a year"),
        ([crop(0, "a")], [CropCode("Y", "a"), CropCode("X", "a")], "sorted"),
        ([crop(i, f"c{i}") for i in range(256)], [], "at most 255"),
    ],
)
def test_a_broken_legend_is_refused(classes, codes, message):
    with pytest.raises(ValueError, match=message):
        Legend(tuple(classes), tuple(codes))
