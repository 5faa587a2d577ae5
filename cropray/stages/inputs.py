"""What every stage settles first: the zone table, and fingerprints of what came in."""

from pathlib import Path

from cropray.config import JobConfig
from cropray.settings import fingerprint
from cropray.workspace import file_hash
from cropray.zones import Zone, bundled_zones, read_zones, select_zones


def job_zones(job: JobConfig) -> tuple[Zone, ...]:
    """The zones of this run, in table order."""
    table = bundled_zones() if job.zone_table is None else read_zones(job.zone_table)
    return select_zones(table, job.zones)


def season_of(zone: Zone, job: JobConfig) -> str:
    """First month `YYYY-MM` of a zone's season."""
    return zone.season_start or job.season_start


def zone_fingerprint(zone: Zone) -> str:
    """SHA-256 of a zone's record."""
    grid = zone.grid
    return fingerprint([zone.zone_id, zone.region, zone.split, zone.season_start, grid.epsg, grid.bounds, grid.shape])


def source_fingerprint(files: list[Path]) -> str:
    """Identity of raw input files: name, size and time of change.

    Raw inputs are many gigabytes; their bytes are not read twice only to find that nothing changed.
    Artefacts that cropray wrote are compared by their bytes instead (`artefact_fingerprint`).
    """
    stats = [(str(file), file.stat()) for file in sorted(files)]
    return fingerprint([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def artefact_fingerprint(files: list[Path]) -> str:
    """SHA-256 over the bytes of artefacts; a missing one counts as such."""
    return fingerprint([[file.name, file_hash(file) if file.exists() else None] for file in files])
