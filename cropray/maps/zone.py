"""One zone mapped: from its artefacts to the map, the preview and the parcels with their predicted crop."""

import json
import math
from dataclasses import dataclass

import geopandas as gpd

from cropray.core.legend import Legend
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.io.storage import local_file, whole_file
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.maps.cog import GROUP_BELOW_TAG, GROUPS_TAG, write_map
from cropray.maps.layout import choose_window
from cropray.maps.parcels import vote
from cropray.maps.predict import Bytes, predict_zone
from cropray.maps.preview import PreviewData, draw_preview
from cropray.maps.settings import MapSettings
from cropray.parcels.labels import read_labels, read_parcel_index
from cropray.training.crop_model import TilePredictor
from cropray.training.decision import decision_of


@dataclass(frozen=True, slots=True)
class MapJob:
    """What is the same for all zones of a map."""

    model_name: str
    """`cnn` or `xgboost`; the folder below `maps`."""
    legend: Legend
    """All classes that labels or map may hold."""
    settings: MapSettings
    workspace: Workspace
    task_bytes: float = math.inf
    """Memory that a task may take; inf: enough."""


def zone_window(
    settings: MapSettings, shape: tuple[int, int], model: TilePredictor, task_bytes: float
) -> tuple[int, int]:
    """Most rows and columns that the model reads at once, in maps and scores alike."""
    if settings.window_px is not None:
        return settings.window_px, settings.window_px
    return choose_window(shape, model, task_bytes)


def map_zone(model: TilePredictor, zone: Zone, job: MapJob) -> tuple[int, int]:
    """Write map and preview of a zone and, where it has parcels, their predicted crop.

    Returns:
        Most rows and columns that the model read at once.

    Raises:
        MissingArtefactError: the zone has no composite.
        SchemaError: an artefact is damaged, or the composite is of another cube than the model reads.
        InputError: one lies elsewhere than the zone.
    """
    workspace, zone_id, name = job.workspace, zone.zone_id, job.model_name
    composite = read_composite(workspace.composite(zone_id), zone.grid, model.cube)
    n_obs = read_n_obs(workspace.n_obs(zone_id), cube=model.cube)
    window = zone_window(job.settings, zone.grid.shape, model, job.task_bytes)
    zone_map = predict_zone(model, composite, n_obs, window)
    labels = read_labels(workspace.labels(zone_id), zone.grid) if workspace.labels(zone_id).exists() else None
    title = f"{zone_id} · {name} · {zone.split} zone"
    draw_preview(
        PreviewData(title, composite, n_obs, labels, zone_map, job.legend.classes, model.cube),
        workspace.map_preview(name, zone_id),
    )
    if workspace.parcels(zone_id).exists():
        _map_parcels(zone_id, zone_map.class_id, job)
    tags, decision = {"CROPRAY_MODEL": name, "CROPRAY_ZONE": zone_id}, decision_of(model)
    if decision.group_below is not None:
        groups = json.dumps(dict(enumerate(decision.group_names, start=1)), ensure_ascii=False)
        tags |= {GROUPS_TAG: groups, GROUP_BELOW_TAG: str(decision.group_below)}
    write_map(workspace.map(name, zone_id), zone_map, zone.grid, model.classes, tags)
    return window


def _map_parcels(zone_id: str, class_id: Bytes, job: MapJob) -> None:
    """Write the zone's parcels with their predicted crop."""
    workspace = job.workspace
    with local_file(workspace.parcels(zone_id)) as path:
        parcels = gpd.read_parquet(path)
    index = read_parcel_index(workspace.parcel_index(zone_id))
    mapped = vote(parcels, index, class_id, job.legend.classes)
    with whole_file(workspace.mapped_parcels(job.model_name, zone_id)) as temporary:
        mapped.to_parquet(temporary, index=False)
