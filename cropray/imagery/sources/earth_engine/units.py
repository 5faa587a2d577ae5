"""Units of work at Earth Engine, each a zone's listing or one of its steps, and the client that does them."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

from cropray.core.cube import Season
from cropray.core.errors import CroprayError
from cropray.imagery.sources.earth_engine.client import EarthEngine
from cropray.imagery.sources.earth_engine.ledger import LISTING, Account, UnitOutcome
from cropray.imagery.sources.earth_engine.months import MonthUnit, write_month
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone


@dataclass(frozen=True, slots=True)
class ListingUnit:
    """The scenes of one zone: what one request asks for."""

    zone: Zone
    season: Season

    @property
    def zone_id(self) -> str:
        """The zone's id."""
        return self.zone.zone_id


Unit = ListingUnit | MonthUnit


class UnitClient:
    """Does one unit after the other; it connects with the first."""

    def __init__(self, settings: EarthEngineSettings, workspace: Workspace, take_turn: Callable[[], None]) -> None:
        self._settings, self._workspace, self._take_turn = settings, workspace, take_turn
        self._earth_engine: EarthEngine | None = None

    def __call__(self, unit: Unit) -> UnitOutcome:
        """Do one unit; its errors become part of the outcome."""
        started = time.monotonic()
        try:
            if self._earth_engine is None:
                self._earth_engine = EarthEngine(self._settings, self._take_turn)
        except CroprayError as error:
            return failed(unit, f"{error} (node {platform.node()})", is_cut_off=True)
        assets: tuple[str, ...] = ()
        message = None
        try:
            if isinstance(unit, ListingUnit):
                assets = self._earth_engine.list_assets(unit.zone.grid, unit.season)
            else:
                write_month(self._workspace, unit, self._earth_engine.month(unit))
        except CroprayError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001  the edge of a unit: recorded, the others go on
            message = f"{type(error).__name__}: {error}"
        account, seconds = self._earth_engine.take_account(), time.monotonic() - started
        return UnitOutcome(unit.zone_id, _name(unit), account, seconds, message, assets)


def failed(unit: Unit, error: str, *, is_cut_off: bool = False) -> UnitOutcome:
    """The outcome of a unit that was not asked for."""
    return UnitOutcome(unit.zone_id, _name(unit), Account(), 0.0, error, is_cut_off=is_cut_off)


def _name(unit: Unit) -> str:
    return LISTING if isinstance(unit, ListingUnit) else unit.month
