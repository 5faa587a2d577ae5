"""What a report is made from; every score follows from the cubes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cropray.core.metrics import Counts, Scores, score, score_study_protocol
from cropray.datasets.manifest import Manifest
from cropray.io.storage import Location
from cropray.search.results import ConfigurationResult, Params


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One kind of model: its search and its test."""

    name: str
    """`cnn` or `xgboost`; becomes part of file names."""
    label: str
    """What readers call it: `CNN`, `XGBoost`."""
    configurations: Sequence[ConfigurationResult]
    best: Params
    """Parameters of the winner, as in one of the configurations."""
    zone_ids: tuple[str, ...]
    """Test zone of each cube row."""
    cube: Counts
    """[zone, true, predicted] int64 over the dataset's class indices."""
    loss_sum: float | None
    """Negative log-likelihood summed over the test pixels, nats."""
    intervals: Mapping[str, tuple[float, float]]
    """Score key (`test_accuracy` …) → 95 % interval by bootstrap over zones; empty where zones are too few."""
    no_intervals: str = ""
    """Why there are none."""
    seed: int = 0
    """Of the bootstrap."""
    step_name: str = "epoch"
    """What one step of a history is: `epoch`, `trees`."""
    warnings: tuple[str, ...] = ()
    """What the search could not know of itself."""
    decision: Mapping[str, Any] | None = None
    """`decision` of the search's result: how the model decides and tempers, and what that is worth out of fold; None: the
    likeliest class, and its own probabilities."""
    new_region: Scores | None = None
    """Leave-region-out: scores on all training zones, each by a fit that saw no zone of its region; None: not scored."""
    new_regions: Mapping[str, Scores] = field(default_factory=dict)
    """The same, region by region."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """The same test counted otherwise, see `detail.detail`; empty of an evaluation by an earlier version."""

    @property
    def confusion(self) -> Counts:
        """[true, predicted] int64 over all test zones."""
        matrix: Counts = self.cube.sum(0)
        return matrix

    @property
    def scores(self) -> Scores:
        """Test scores."""
        return score(self.confusion, self.loss_sum)

    @property
    def study_scores(self) -> Scores:
        """The same counts under the original study's protocol."""
        return score_study_protocol(self.confusion)


@dataclass(frozen=True, slots=True)
class ZoneQuality:
    """What the pixels of one zone are worth."""

    zone_id: str
    share_filled: float
    """Share of the pixels' steps without a clear observation: their values are made up from neighbouring steps."""
    share_unlabelled: float
    """Share of pixels that lie in no usable parcel: neither trained on nor scored."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A map preview to show."""

    zone_id: str
    model_label: str
    path: Location


@dataclass(frozen=True, slots=True)
class ZonePictures:
    """Pictures of one zone, as they lie beside the dataset."""

    zone_id: str
    region: str
    films: tuple[tuple[str, Location], ...]
    """(what it shows, GIF), true colour and false colour first."""
    n_obs: Location
    """Maps of the clear observations."""


@dataclass(frozen=True, slots=True)
class DataPictures:
    """Pictures of the dataset, as they lie beside it; made before any training."""

    overviews: tuple[tuple[str, Location], ...] = ()
    """(what it shows, PNG)."""
    zones: tuple[ZonePictures, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """Everything that the page shows."""

    manifest: Manifest
    models: tuple[ModelResult, ...] = ()
    """Models that have been searched and evaluated on this dataset; without one, the page shows the data alone."""
    zone_quality: tuple[ZoneQuality, ...] = ()
    """Empty for a dataset of points, which has no images."""
    unknown_codes_ha: Mapping[str, float] = field(default_factory=dict)
    """Crop code that the legend does not know → hectares left unlabelled."""
    previews: tuple[Preview, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What made these results: version, git commit, seed, data hash."""
    next_commands: Mapping[str, str] = field(default_factory=dict)
    """What a reader may want next → the command that does it."""
    missing_models: Mapping[str, str] = field(default_factory=dict)
    """Model without scores → why, for example `not searched yet`."""
    pictures: DataPictures = DataPictures()
