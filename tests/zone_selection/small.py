"""Settings and regions that are quick to search."""

import shapely

from cropray.zone_selection.regions import Region
from cropray.zone_selection.settings import ZoneSelectionSettings

REGION = Region("north", 3.0, 50.0, 32631, "Northtown")
NOWHERE = shapely.Polygon()
"""The outline of no country: it binds no region."""


def settings(**changes) -> ZoneSelectionSettings:
    """Zones of 1 km within 3 km; cells of 100 m."""
    small = {"radius_km": 3.0, "zone_size_m": 1000, "min_gap_m": 300, "zones_per_region": 3}
    return ZoneSelectionSettings.model_validate({"worldcover": {"source": "files", "path": "none"}, **small, **changes})
