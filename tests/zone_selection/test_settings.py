import pytest
from pydantic import ValidationError

from tests.zone_selection.small import settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_m": 100}, "step_m = 100 must be a multiple of 60"),
        ({"cell_m": 70}, "and of cell_m = 70"),
        ({"zone_size_m": 1050}, "zone_size_m = 1050"),
        ({"radius_km": 600}, "may be 10000"),
        ({"zones_per_region": 1}, "zones_per_region"),
        ({"cropland_classes": []}, "cropland_classes"),
        ({"worldcover": {"source": "atlas"}}, "files.*stac.*earth_engine"),
        ({"worldcover": {"source": "earth_engine"}}, "project"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_the_services_defaults_are_worldcover_v200():
    stac = settings(worldcover={"source": "stac"}).worldcover
    assert (stac.collection, stac.asset, stac.year, stac.sign) == ("esa-worldcover", "map", 2021, "planetary_computer")
    engine = settings(worldcover={"source": "earth_engine", "project": "mine"}).worldcover
    assert (engine.collection, engine.band, engine.max_concurrent) == ("ESA/WorldCover/v200", "Map", 20)
