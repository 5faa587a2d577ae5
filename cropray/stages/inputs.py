"""What every stage settles first: the zone table, and fingerprints of what came in."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE, CubeSpec, Season
from cropray.core.errors import ConfigError, InputError, SchemaError
from cropray.core.legend import FIRST_YEAR, LAST_YEAR, Legend, bundled_legend
from cropray.core.settings import Settings
from cropray.datasets.other_split import zones_with_test
from cropray.imagery.acquisition import Acquisition, Order
from cropray.io.storage import Location, content_id, local_file
from cropray.io.workspace import Workspace, require
from cropray.io.zones import Zone, bundled_zones, read_zones, select_zones, zone_fingerprint
from cropray.parcels.legend_file import read_legend, require_codes
from cropray.parcels.rpg import ParcelSettings, is_away, iterate_codes
from cropray.zone_selection.settings import ZoneSelectionSettings


def job_zones(job: JobConfig) -> tuple[Zone, ...]:
    """The zones of this run, in table order.

    Raises:
        MissingArtefactError: the job chooses its zones, and `zones` has not run.
        ConfigError: it has run with other settings, or a wanted zone is not in the table.
        SchemaError: what it wrote is damaged.
    """
    if job.zone_selection is not None:
        table = _chosen_zones(job, job.zone_selection)
    else:
        table = bundled_zones() if job.zone_table is None else read_zones(job.zone_table)
    return select_zones(table, job.zones)


def divided_zones(job: JobConfig) -> tuple[Zone, ...]:
    """The zones of this run with the split that the dataset has; what is made of a single zone does not depend on it.

    Raises:
        ConfigError: beside what `job_zones` raises, `test_zones` names zones that are not there, or all of them.
    """
    return zones_with_test(job_zones(job), job.test_zones)


def _chosen_zones(job: JobConfig, settings: ZoneSelectionSettings) -> tuple[Zone, ...]:
    workspace = job.artefacts
    try:
        chosen_by = json.loads(require(workspace.zone_reasons, "zones").read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(
            f"'{workspace.zone_reasons}' is damaged ({type(error).__name__}: {error}); remove it and run "
            f"`cropray zones CONFIG.yaml`"
        ) from None
    if _decided(chosen_by, settings) != _decided(settings.model_dump(mode="json"), settings):
        raise ConfigError(
            f"'{workspace.chosen_zones}' was chosen with other settings than 'zone_selection' holds now; run "
            f"`cropray zones CONFIG.yaml` to choose again, or put the settings back"
        )
    with local_file(require(workspace.chosen_zones, "zones")) as path:
        return read_zones(path)


def _decided(values: Any, settings: object) -> Any:
    """The values of settings, or of earlier ones, without resources."""
    if not isinstance(values, dict) or not isinstance(settings, Settings):
        return values
    return {
        name: _decided(value, getattr(settings, name, None))
        for name, value in values.items()
        if name not in settings.resources()
    }


def season_of(zone: Zone, job: JobConfig) -> Season:
    """A zone's season in the steps of the job's cube."""
    return Season(zone.season_start or job.season_start, job.cube_spec)


def legend_of(parcels: ParcelSettings | None) -> Legend:
    """The legend of a job's parcels: its own file's, or the French one.

    Raises:
        InputError: the file is missing, or no legend.
    """
    return bundled_legend() if parcels is None or parcels.legend is None else read_legend(parcels.legend)


def check_legend(parcels: ParcelSettings) -> None:
    """Refuse a legend file that cannot be used with the job's register.

    The codes of a register that has to be fetched are not looked at: that takes as long as to label its zones.

    Raises:
        InputError: the file is missing or no legend, or has none of the register's codes.
    """
    if parcels.legend is not None:
        legend = read_legend(parcels.legend)
        if not is_away(parcels):
            require_codes(legend, iterate_codes(parcels), parcels.legend)


def register_year(zone: Zone, job: JobConfig) -> int:
    """Year of the parcel register whose code table counts for a zone: the settings', else the middle of the season's.

    Raises:
        ConfigError: the code table of the French legend does not reach to that year.
    """
    if job.parcels is not None and job.parcels.year is not None:
        return job.parcels.year
    year = season_of(zone, job).middle.year
    is_french = job.parcels is None or job.parcels.legend is None
    if is_french and not FIRST_YEAR <= year <= LAST_YEAR:
        raise ConfigError(
            f"zone '{zone.zone_id}' has its season in {year}; the code table knows the registers of {FIRST_YEAR} to "
            f"{LAST_YEAR}: set parcels.year to the one whose codes the file uses, or parcels.legend to a legend of your own"
        )
    return year


def require_season_of_composites(zones: Sequence[Zone], job: JobConfig) -> None:
    """Refuse composites that were made for another season or cube than the job's; one without a record passes.

    Raises:
        InputError: there are such; one is named.
        SchemaError: a record is damaged.
    """
    pairs = {}
    for zone in zones:
        record = _record(job.artefacts.acquisition_record(zone.zone_id), "acquire")
        if (said := record.get("season_start")) is not None:
            season = season_of(zone, job)
            pairs[zone.zone_id] = said, season.first_month
            _require_cube(zone.zone_id, season.cube, record.get("cube"))
    _require_same("composites", pairs, ("acquire", "season_start"))


def _require_cube(zone_id: str, here: CubeSpec, record: Any) -> None:
    """Refuse a composite whose record says that it is of another cube."""
    there = STUDY_CUBE if record is None else CubeSpec.from_record(record)
    if there.fingerprint() != here.fingerprint():
        raise InputError(
            f"the composite of zone '{zone_id}' is of another cube, {there.describe()}, than the job, {here.describe()}; run "
            f"`cropray acquire CONFIG.yaml` again, or put 'cube' back"
        )


def require_year_of_labels(zones: Sequence[Zone], job: JobConfig) -> None:
    """Refuse labels that were made from another year's codes than the job's; those without a report pass.

    Raises as `require_season_of_composites`, and as `register_year`.
    """
    pairs = {}
    for zone in zones:
        if (said := _record(job.artefacts.label_report(zone.zone_id), "labels").get("year")) is not None:
            pairs[zone.zone_id] = said, register_year(zone, job)
    _require_same("labels", pairs, ("labels", "season_start or parcels.year"))


def require_legend_of_labels(zones: Sequence[Zone], workspace: Workspace, legend: Legend) -> None:
    """Refuse labels that were made with another legend than the job's, as `require_legend`; without a report they pass."""
    reports = {f"labels of zone '{zone.zone_id}'": workspace.label_report(zone.zone_id) for zone in zones}
    require_legend(reports, legend, "labels")


def require_legend(records: Mapping[str, Location], legend: Legend, made_by: str) -> None:
    """Refuse what a stage made with another legend than the job's: its class ids mean other classes.

    `records` are what was made → the record beside it.

    Raises:
        InputError: there is such.
        SchemaError: a record is damaged.
    """
    hashes = {what: _record(file, made_by).get("legend_hash") for what, file in records.items()}
    others = [what for what, there in hashes.items() if there not in (None, legend.hash())]
    if others:
        raise InputError(
            f"made with another legend than the job's: {others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}; "
            f"run `cropray {made_by} CONFIG.yaml` again, or put parcels.legend back"
        )


def _require_same(what: str, pairs: Mapping[str, tuple[object, object]], mend: tuple[str, str]) -> None:
    """`pairs`: zone → what its record says and what the job wants; `mend`: the stage that makes it, the settings."""
    others = [(zone_id, there, here) for zone_id, (there, here) in pairs.items() if there != here]
    if others:
        zone_id, there, here = others[0]
        raise InputError(
            f"{len(others)} of {len(pairs)} zones have {what} of another season: zone '{zone_id}' of {there} instead of "
            f"{here}; run `cropray {mend[0]} CONFIG.yaml` again, or put {mend[1]} back"
        )


def _record(path: Location, made_by: str) -> dict[str, Any]:
    """What a record beside an artefact says; nothing where there is none: some artefacts were brought without.

    SchemaError where it is damaged, and nobody knows of which season or legend the artefact is.
    """
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise SchemaError(
            f"'{path}' is damaged ({type(error).__name__}: {error}); remove it and run `cropray {made_by} CONFIG.yaml` again"
        ) from None


def acquisition_of(
    job: JobConfig, zones: Sequence[Zone] | None = None, workspace: Workspace | None = None
) -> Acquisition[Any]:
    """The work of a job's source; for some zones, in another workspace than the job's, where these are given."""
    assert job.imagery is not None
    wanted = job_zones(job) if zones is None else zones
    return job.imagery.for_order(Order(wanted, job.season_start, job.cube_spec, workspace or job.artefacts))


def content_of_zone(workspace: Workspace, zone: Zone) -> dict[str, object]:
    """What is read of one zone by the stages after `acquire` and `labels`: its place, and the content of its files."""
    files = {
        "composite": workspace.composite(zone.zone_id),
        "observation counts": workspace.n_obs(zone.zone_id),
        "labels": workspace.labels(zone.zone_id),
        "parcel index": workspace.parcel_index(zone.zone_id),
        "parcels": workspace.parcels(zone.zone_id),
    }
    return {"place": zone_fingerprint(zone), **{name: content_id(file) for name, file in files.items()}}
