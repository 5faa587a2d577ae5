import json
from dataclasses import replace

import pytest

from cropray.core.legend import CropCode, Legend
from cropray.parcels.coverage import describe, summarize
from cropray.parcels.report import CodeTally, LabelReport
from tests.parcels.polygons import LEGEND


def report(zone_id, year=2022, **codes):
    """A zone of 10 000 pixels; `codes` are hectares under BTH (mapped), ROC (excluded), and unknown others."""
    status = {"BTH": ("mapped", "Wheat"), "ROC": ("excluded", None)}
    tallies = tuple(
        CodeTally(code, "", *status.get(code, ("unknown", None)), 2, area_ha, 0) for code, area_ha in codes.items()
    )
    return LabelReport(zone_id, year, 10_000, 2_500, 2 * len(codes), 1, 3, 0.5, 50, 7, tallies, 4, 5, 6)


REPORTS = [
    report("n1", BTH=30.0, ROC=10.0),
    report("s1", BTH=20.0, JAC=15.0, XYZ=5.0),
    report("n2", BTH=50.0, JAC=10.0),
]
COVERAGE = summarize(REPORTS, {"n1": "north", "n2": "north", "s1": "south"}, LEGEND)


def test_sums_zones_to_regions_and_to_one_total():
    north, south = COVERAGE.regions
    assert (north.name, south.name, COVERAGE.total.name) == ("north", "south", "all")
    assert (north.declared_ha, north.mapped_ha, north.excluded_ha, north.unknown_ha) == (100, 80, 10, 10)
    assert (south.declared_ha, south.mapped_ha, south.excluded_ha, south.unknown_ha) == (40, 20, 0, 20)
    assert (COVERAGE.total.declared_ha, COVERAGE.total.n_parcels) == (140, 14)
    assert (north.unmapped_share, south.unmapped_share) == (0.2, 0.5)
    assert COVERAGE.total.unmapped_share == pytest.approx(40 / 140)
    assert (north.labelled_share, north.n_repaired, north.n_without_area) == (0.25, 2, 6)
    assert (north.shared_ha, north.n_shared_pixels, north.n_border_pixels) == (1.0, 100, 14)


def test_lists_zones_below_their_region():
    assert {region: [row.name for row in rows] for region, rows in COVERAGE.zones.items()} == {
        "north": ["n1", "n2"],
        "south": ["s1"],
    }
    assert COVERAGE.zones["south"][0].unknown_ha == 20


def test_says_when_an_unknown_code_is_in_use():
    jac, xyz = COVERAGE.unknown_codes
    assert (jac.code, jac.area_ha, jac.n_parcels, jac.used) == ("JAC", 25, 4, (2023, 2024))
    assert (xyz.code, xyz.used) == ("XYZ", None)


def test_the_table_can_be_read():
    lines = list(describe(COVERAGE))
    names = [line.split()[0] for line in lines[1:7]]
    assert names == ["all", "north", "n1", "n2", "south", "s1"]
    assert lines[2].split()[1:] == ["8", "100", "80.0%", "10.0%", "10.0%", "25.0%", "1.0", "2"]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[7].endswith("25.0 ha stay unlabelled; it is in use 2023–2024: is parcels.year right?")
    assert lines[8] == "code 'XYZ': 2 parcels, 5.0 ha stay unlabelled"
    assert [line.split()[0] for line in lines[9:]] == ["150", "21", "18", "9", "12", "15"]  # of three zones
    assert "smallest of them decides" in lines[9]
    assert "parcels.inner_buffer_m" in lines[10]
    assert "no pixel shows them" in lines[11]
    assert "lines, points or flat" in lines[12]
    assert "have no id" in lines[13]
    assert "have the id of another one" in lines[14]


def test_nothing_is_said_of_what_did_not_happen():
    quiet = replace(
        report("n1", BTH=30.0), n_shared_pixels=0, n_border_pixels=0, n_without_pixel=0, n_without_area=0, n_without_id=0,
        n_same_id=0,
    )  # fmt: skip
    assert len(list(describe(summarize([quiet], {"n1": "north"}, LEGEND)))) == 4


def test_a_code_in_small_letters_is_recognized_but_not_taken():
    coverage = summarize([report("n1", bth=30.0, xyz=1.0)], {"n1": "north"}, LEGEND)
    assert [code.near for code in coverage.unknown_codes] == ["BTH", None]
    assert any(line.endswith("stay unlabelled; did the file mean 'BTH'?") for line in describe(coverage))


def test_of_many_zones_those_with_much_unmapped_are_listed():
    reports = [report(f"z{i}", BTH=95.0, XYZ=5.0) for i in range(12)] + [report("bad", BTH=80.0, XYZ=20.0)]
    coverage = summarize(reports, dict.fromkeys([one.zone_id for one in reports], "north"), LEGEND)
    assert [line.split()[0] for line in describe(coverage)][1:4] == ["all", "north", "bad"]
    assert len(coverage.zones["north"]) == 13


def test_a_zone_without_declared_area_divides_by_nothing():
    coverage = summarize([report("n1")], {"n1": "north"}, LEGEND)
    assert coverage.total.unmapped_share == 0
    assert "0.0%" in list(describe(coverage))[1]


def test_is_written_as_json():
    record = json.loads(json.dumps(COVERAGE.to_record()))
    assert record["regions"][0]["name"] == "north"
    assert record["zones"]["south"][0]["unknown_ha"] == 20
    assert record["unknown_codes"][0]["used"] == [2023, 2024]


def test_a_code_without_its_zeros_is_recognized_but_not_taken():
    legend = Legend(LEGEND.classes, (CropCode("000", "Maize"), CropCode("7a", "Wheat")))
    reports = [report("n1", **{"07A": 3.0, "": 2.0, "0": 1.0})]
    coverage = summarize(reports, {"n1": "north"}, legend)
    assert {code.code: code.near for code in coverage.unknown_codes} == {"07A": "7a", "": None, "0": "000"}


def test_of_many_unknown_codes_the_largest_are_listed():
    coverage = summarize([report("n1", **{f"X{n:02d}": 1.0 + n for n in range(40)})], {"n1": "north"}, LEGEND)
    lines = [line for line in describe(coverage) if "unlabelled" in line and not line.startswith("7 ")]
    assert len(lines) == 13
    assert lines[0] == "code 'X39': 2 parcels, 40.0 ha stay unlabelled"
    assert lines[12] == "28 more codes: 56 parcels, 406.0 ha stay unlabelled"  # 1 + 2 + … + 28
    assert len(coverage.unknown_codes) == 40
