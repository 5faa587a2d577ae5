"""Whose paths a workspace with another one's images or dataset has."""

from pathlib import Path

import pytest

from cropray.io.sharing_workspace import OF_DATASET, OF_IMAGES, SharingWorkspace
from cropray.io.workspace import Workspace

MINE, IMAGES, DATASET = Path("/mine"), Path("/images"), Path("/dataset")


@pytest.mark.parametrize("name", sorted(OF_IMAGES | OF_DATASET))
def test_what_another_workspace_has_is_a_path_of_workspaces(name):
    assert hasattr(Workspace, name)


@pytest.mark.parametrize(
    ("images_of", "dataset_of", "images", "dataset"),
    [(None, None, MINE, MINE), (IMAGES, None, IMAGES, MINE), (None, DATASET, DATASET, DATASET), (IMAGES, DATASET, IMAGES, DATASET)],
)  # fmt: skip
def test_images_are_where_the_dataset_is_unless_they_are_elsewhere(images_of, dataset_of, images, dataset):
    workspace = SharingWorkspace(MINE, images_of, dataset_of)
    assert workspace.composite("a-1") == images / "composites" / "a-1.tif"
    assert workspace.chosen_zones == images / "zones.csv"
    assert workspace.unit_progress("net", "u") == dataset / "search" / "net" / "progress" / "u"
    assert workspace.pixels("a-1") == dataset / "dataset" / "pixels" / "zone_id=a-1"  # below `dataset`, of the base
    assert workspace.model("net") == MINE / "models" / "net"
