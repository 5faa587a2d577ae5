"""A family of models: its settings, how a fit of it is made and scored, and how its models are read back.

A family is one folder of this package, or a plug-in's: a module with a `Family`, named by the entry point
`cropray.families`. Nothing else in cropray knows its name. Its module and its settings are read with every job file, so
they import no library that computes; `fit` and `load` import theirs when they are called.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field

from cropray.cluster.resources import FitSize, Need
from cropray.core.closure import Code, Root, closure
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import ConfigError
from cropray.core.features import BANDS, FeatureSet, entries_of_features
from cropray.core.legend import CropClass
from cropray.core.registry import entries_outside, plugged, require_same, take_over
from cropray.core.settings import Settings
from cropray.io.storage import Location
from cropray.training.crop_model import CropModel, Probabilities
from cropray.training.members import Member
from cropray.training.weights import ClassWeighting

if TYPE_CHECKING:
    from cropray.core.metrics import Counts

Sample = Literal["pixel", "tile"]
ENTRY_POINTS: Final = "cropray.families"
RESOURCES: Final = frozenset({"checkpoint_every", "max_failures", "memory_gb", "cpus_per_worker"})
# Other numbers of CPUs change a result by rounding at most, and repeat nothing.
_BUILT_IN: Final = ("xgboost", "cnn", "lightgbm", "forest", "temp_cnn", "blend")  # folders of this package
DEFAULT_FAMILIES: Final = ("xgboost", "cnn")  # of a search: the original study's


class FamilySettings(Settings):
    """Architecture, recipe and resources of a family; every field that is no resource can be searched."""

    num_workers: int = Field(default=0, ge=0)
    """Workers of one fit; 0: in the calling process."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs of each worker, or of the calling process; None: its share of the node."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of each worker, or of the calling process, GB; None: its share of the node."""

    def __getstate__(self) -> dict[str, Any]:
        """With entries of one's own: the process that fits looks them up by name."""
        return {"settings": super().__getstate__(), "entries": entries_outside()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `__getstate__` gave."""
        take_over(state["entries"])
        super().__setstate__(state["settings"])

    def resources(self) -> frozenset[str]:
        """Fields that change no result."""
        return RESOURCES

    def need(self) -> Need:
        """What one fit asks Ray for; where it takes its share of the CPUs, the least."""
        return Need(
            num_workers=self.num_workers, cpus=self.cpus_per_worker or 1.0, memory_bytes=(self.memory_gb or 0.0) * 1e9
        )

    def check(self, size: FitSize) -> str:  # noqa: ARG002 - of no use here
        """Refuse a fit that cannot be made, before anything is read.

        Args:
            size: of the largest fit, training and validation samples together.

        Returns:
            What a person should know of how it will be made; empty: nothing.

        Raises:
            ConfigError: it does not fit, and what to change.
        """
        return ""

    def measurable(self, cpus: float, *, has_gpus: bool) -> Self:
        """These settings for a fit in the calling process, on so many CPUs: a plan measures it, and estimates others."""
        need = self.need()
        without = {need.gpu_setting: need.without_gpu} if need.gpus and not has_gpus else {}
        return self.with_values({"num_workers": 0, **without}).on_cpus(cpus)

    def fit_bytes(self, size: FitSize) -> float | None:  # noqa: ARG002 - of no use here
        """Memory that a fit takes in each worker beside libraries; None: not known, a plan measures it."""
        return None

    def builds_on(self, searched: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:  # noqa: ARG002 - of no use here
        """(families of a search whose winners it is built from, see `Family.combine`; those that it wants and lacks)."""
        return (), ()

    @property
    def heeds_out_of_fold(self) -> bool:
        """Whether what it is built from is weighed by its out-of-fold probabilities."""
        return False

    def n_features(self, cube: CubeSpec) -> int:
        """Numbers that a model reads of a pixel."""
        return cube.n_features

    def lacks(self) -> frozenset[str]:
        """Fields that mean nothing where the others are as they are."""
        return frozenset()

    def stopped_by(self) -> tuple[str, ...]:
        """Keys of the metrics that decide how long a fit goes on."""
        return ()

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """These settings with others for some fields, checked.

        Raises:
            pydantic.ValidationError: a value is refused.
        """
        return self.model_validate({**self.model_dump(), **values})

    def on_cpus(self, cpus: float) -> Self:
        """These settings for a fit that was given so many CPUs."""
        kind = int if type(self).model_fields["cpus_per_worker"].annotation == (int | None) else float
        return self.model_copy(update={"cpus_per_worker": kind(cpus)})

    @property
    def takes_share(self) -> bool:
        """Whether fits share the CPUs, instead of having as many as is said."""
        return self.cpus_per_worker is None


class PixelFamilySettings(FamilySettings):
    """Of a family whose models read one pixel at a time."""

    features: tuple[str, ...] = Field(default=(BANDS,), min_length=1)
    """What a model reads, computed from the cube: `bands`, indices by name (`ndvi` …) or by formula
    (`wet=(B03-B11)/(B03+B11)`, `gr=(green-red)/(green+red)`), `ratios`, `differences`, `quantiles`, `phenology`, `band_phenology`;
    one that ends in `?` (`ndvi?`, `gr?=…`) is left out where the cube cannot give it; see `cropray.core.feature_choice`."""
    class_weighting: ClassWeighting = "none"
    """`sqrt_inverse` weighs classes by 1 / √(training pixels), `inverse` by 1 / (training pixels), `effective` by the
    effective number of them. Validation counts every pixel once."""

    def n_features(self, cube: CubeSpec) -> int:
        """Of the features.

        Raises:
            ConfigError: one cannot be computed from the cube.
        """
        return len(FeatureSet(cube, self.features).columns)


@dataclass(frozen=True, slots=True)
class FitData:
    """Labelled samples of some zones."""

    blocks: Mapping[str, Any]
    """Zone → its pixel table or its tiles, or where Ray keeps them."""
    n_rows: Mapping[str, int]
    """Zone → labelled pixels, as the manifest counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One fit to make."""

    settings: Any
    """Of the family, with the searched values."""
    train: FitData
    val: FitData | None
    """None: nothing stops or scores the fit."""
    classes: tuple[CropClass, ...]
    """Classes of the dataset; their position is the index that models predict."""
    legend_hash: str
    mean: tuple[float, ...]
    """Per band, of the training zones, digital numbers."""
    std: tuple[float, ...]
    seed: int
    folder: Path
    """An existing folder that takes the model: its `card.json` last, with `kind` the family's name."""
    steps: tuple[int, ...] = ()
    """Rising values of the family's `steps` field: prefixes of the fit, each of which is scored. Empty: it has none."""
    n_steps: int | None = None
    """Stop after so many steps, as a recipe that was validated is repeated on other zones; None: validation decides."""
    progress: Location | None = None
    """File from which a fit that lost its process goes on; the caller removes it. None: it starts again."""
    memory_bytes: float | None = None
    """What each worker may take; None: not known."""
    cube: CubeSpec = STUDY_CUBE
    """Bands and steps of the samples; the model's card says them."""
    is_weighted: bool = False
    """Whether the training blocks hold a column `weight`: each row counts as so many in training, and once in validation."""
    on_step: Callable[[Mapping[str, float]], None] | None = None
    """Called in this process with the record of each step as it is done; families that cannot need not."""
    members: tuple[Member, ...] = ()
    """Finished fits of the same zones, of a family that is built from them."""


@dataclass(frozen=True, slots=True)
class FitScore:
    """Validation of a fit, or of one of its prefixes."""

    step: int
    """Epoch or number of rounds that the scores belong to; 0 where the family has none."""
    confusion: "Counts"
    """[true, predicted] int64 over class indices; all validation pixels."""
    loss_sum: float
    """Negative log-likelihood summed over the validation pixels of trained classes, nats; see `cropray.core.metrics`."""
    untrained: tuple[int, ...]
    """Indices of the classes that the training zones lack."""
    untrained_loss_sum: float
    """The same of the pixels of these classes."""
    history: tuple[Mapping[str, float], ...]
    """One record per step up to this one, with `step`."""
    seconds: float
    """What a fit of so many steps takes."""


Prefix = Callable[[CropModel, int], CropModel]
Combine = Callable[[Mapping[str, Any], Sequence[Probabilities]], Probabilities]


def _feature_entries(settings: Any) -> Sequence[type]:
    return entries_of_features(getattr(settings, "features", ()))


def _feature_entries_of_card(card: Mapping[str, Any]) -> Sequence[type]:
    return entries_of_features(card.get("inputs", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of models."""

    name: str
    """Key in job files, name of its folders and alias in the registry."""
    label: str
    """For people: `XGBoost`."""
    step_name: str
    """What its histories count: `epoch`, `boosting round`."""
    sample: Sample
    """What it is trained on: rows of pixel tables, or tiles."""
    settings: type[FamilySettings]
    fit: Callable[[Fit], Sequence[FitScore]]
    """Writes the model into the fit's folder and scores it: one score per prefix, or one; none without validation."""
    load: Callable[[Path, str], CropModel]
    """(folder on this disk, `cpu` or `cuda`) → the model. Raises SchemaError where it is damaged."""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What is searched where the job says nothing: field of the settings → values."""
    steps: str | None = None
    """Field that counts steps whose prefixes are models of their own: its searched values are one fit."""
    most_steps: str | None = None
    """Field that bounds the steps of a fit that validation stops."""
    prefix: Prefix | None = None
    """(model, value of `steps`) → the model that a fit of so many steps would be; of families with `steps`."""
    batch: str | None = None
    """Field that bounds the samples which a fit holds in memory; None: it holds all of them."""
    free: frozenset[str] = frozenset()
    """Fields that change no fit's cost. A plan measures trials apart that differ in others."""
    operations: Callable[[Any, int, int, CubeSpec], float] | None = None
    """(settings, side of a tile, number of classes, cube) → floating-point operations of a sample's prediction; None: not known."""
    predicts_on_gpu: bool = False
    """Whether its models use the device that `load` is given."""
    weighs_rows: bool = False
    """Whether its fits heed `Fit.is_weighted`; others are refused where the dataset has weights."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Modules that it needs and that an installation may lack → what pip is given for them: `cropray[lightgbm]`."""

    combine: Combine | None = None
    """(card of a fit, probabilities [N, K] of each of its `Fit.members`) → its own: of families that are built from other
    families' winners (`FamilySettings.builds_on`) once these are searched; None: it is fitted on samples."""
    entries: Callable[[Any], Sequence[type]] = _feature_entries
    """Settings → classes that a fit of them looks up by name: their code decides it as that of `fit` does."""
    model_entries: Callable[[Mapping[str, Any]], Sequence[Root]] = _feature_entries_of_card
    """Card of a model → what it looks up by name to predict: that code decides its maps and scores, the recipe's does not."""

    def require_packages(self) -> None:
        """See that its libraries are installed, without loading them.

        Raises:
            ConfigError: one is not.
        """
        for module, wanted in self.packages.items():
            if importlib.util.find_spec(module) is None:
                raise ConfigError(
                    f"{self.label} needs the package {module}, which is not installed: run pip install '{wanted}', or "
                    f"take {self.name} out of search.models"
                )

    def code(self) -> Code:
        """Everything that its fits can reach: own code, and libraries that compute."""
        return closure(self.fit)


def family(name: str) -> Family:
    """The family of a name.

    Raises:
        ConfigError: there is none.
    """
    known = families()
    if name not in known:
        raise ConfigError(f"'{name}' is no family of models; known are {', '.join(known)}")
    return known[name]


def families() -> Mapping[str, Family]:
    """Name → family: those of cropray, of installed plug-ins, and registered ones."""
    return {**_installed(), **_REGISTERED}


_REGISTERED: Final[dict[str, Family]] = {}


def register(new: Family) -> None:
    """Make a family known to this process; an installed plug-in needs no call, it has an entry point.

    Raises:
        ConfigError: its name is another family's.
    """
    require_same(f"the family '{new.name}'", families().get(new.name, new).settings, new.settings)
    _REGISTERED[new.name] = new


def registered() -> tuple[Family, ...]:
    """Families that only this process knows."""
    return tuple(_REGISTERED.values())


@cache
def _installed() -> Mapping[str, Family]:
    found = {name: importlib.import_module(f"cropray.training.{name}.family").FAMILY for name in _BUILT_IN}
    for called, new in plugged(ENTRY_POINTS).items():
        if not isinstance(new, Family):
            raise ConfigError(f"the {called} names no Family")
        require_same(f"the family '{new.name}'", found.get(new.name, new).settings, new.settings)
        found[new.name] = new
    return found
