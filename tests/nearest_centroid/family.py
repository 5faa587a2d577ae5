"""Nearest centroid as a family: what somebody else would write, in a package of any name."""

import time
from dataclasses import replace

import numpy as np
from pydantic import Field

from cropray.training.card import read_card
from cropray.training.family import Family, PixelFamilySettings
from cropray.training.pixel_blocks import tree_data
from cropray.training.pixel_model import from_card
from cropray.training.pixels import score_pixels, training_rows, write_card

from .served import FILE, Centroids, read, save

KIND, VERSION = "centroid", 1


class CentroidSettings(PixelFamilySettings):
    """How far a centroid reaches, and which rows make it."""

    reach: float = Field(default=300.0, gt=0)
    """Distance, digital numbers, at which a class is e times less likely."""
    trim: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the values at either end of a feature that do not count."""


def fit(job):
    """Means of each class."""
    started = time.monotonic()
    train = tree_data(job.train, job)
    rows = training_rows(train)
    centroids = Centroids(np.full((train.n_classes, rows.x.shape[1]), np.nan), job.settings.reach)
    for label in np.unique(rows.labels):
        x = np.sort(rows.x[rows.labels == label].astype(float), 0)
        cut = int(len(x) * job.settings.trim)
        centroids.means[label] = x[cut : len(x) - cut].mean(0)
    save(job.folder, centroids)
    write_card(job.folder, KIND, VERSION, train, {"settings": job.settings.model_dump(mode="json"), "seed": job.seed})
    if job.val is None:
        return []
    (score,) = score_pixels(centroids.predict, tree_data(job.val, job), [0], rows.untrained)
    return [replace(score, seconds=time.monotonic() - started)]


def load(folder, device):
    """The model of a folder."""
    card = read_card(folder, KIND, VERSION, FILE)
    return from_card(folder, card, f"{__package__}.served", read(folder).predict)


FAMILY = Family(
    name=KIND,
    label="Nearest centroid",
    step_name="step",
    sample="pixel",
    settings=CentroidSettings,
    fit=fit,
    load=load,
    grid={"reach": (100.0, 400.0)},
)
