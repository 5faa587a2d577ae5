"""One job: everything a YAML file may say, composed from the settings of each part's owner."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Self, cast

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from cropray.cluster.settings import ClusterSettings, PlanSettings
from cropray.core.addresses import refuse_secrets
from cropray.core.cube import CubeSpec
from cropray.core.cube_settings import CubeSettings
from cropray.core.errors import ConfigError
from cropray.core.feature_choice import choose
from cropray.core.registry import entries_outside, take_over
from cropray.core.settings import Settings
from cropray.datasets.points import PointsSettings
from cropray.datasets.settings import DatasetSettings
from cropray.imagery.registry import SOURCES, SourceSettings
from cropray.imagery.sources import imagery_settings
from cropray.io.raw_files import InputSetting
from cropray.io.sharing_workspace import SharingWorkspace
from cropray.io.storage import LocationSetting
from cropray.io.workspace import Workspace
from cropray.maps.settings import MapSettings
from cropray.parcels.rpg import ParcelSettings
from cropray.report.settings import ReportSettings
from cropray.search.decision import DecisionSettings
from cropray.search.recipe import STUDY, put_under, read_recipe
from cropray.search.sampling import trials
from cropray.search.space import SearchSettings, complete
from cropray.training.abilities import able, require_static
from cropray.training.family import Family, FamilySettings, PixelFamilySettings, families, family, register, registered
from cropray.zone_selection.settings import ZoneSelectionSettings

_MODELS_OF_RECIPE: Final = "models of the recipe"  # the job names no families itself
_SUBMITTED: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the process of a submitted job


class JobConfig(Settings):
    """One area, one season, one dataset, one search. Relative paths start at the current folder.

    Every family of models has a section of its own name (`xgboost`, …), and one below `search` for what is searched of it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")
    """Name of the dataset and of the tracking experiment."""
    workspace: LocationSetting
    """Folder that all artefacts are written below, on a disk or in object storage (`s3://…`, `gs://…`, `az://…`)."""
    recipe: str = STUDY
    """Settings of families and of the search that are put under the job's own, key by key: `study`, the published study
    without its errors; `best`, what is known to score best on new zones; or a YAML file of one's own."""
    seed: int = Field(default=0, ge=0)
    """Of all that is drawn at random: equal seeds and equal inputs give equal results."""
    season_start: str = Field(default="2023-01", pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    """First month of the season; a zone table's own column goes before."""
    cube: CubeSettings = CubeSettings()
    """Bands and steps of time of every pixel."""
    zone_table: InputSetting | None = None
    """CSV zone table; None: the 40 zones of France that come with cropray."""
    zone_selection: ZoneSelectionSettings | None = None
    """`cropray zones` chooses the zones where the cropland is; None: those of the zone table."""
    zones: tuple[str, ...] | None = None
    """Run stages on these zones only."""
    test_zones: tuple[str, ...] | None = None
    """These zones are the test and all others are trained on; None: as the column `split` of the table says. `cropray
    nested` tests every zone so."""
    until_step: int | None = Field(default=None, ge=1)
    """Train and predict as if the season ended with this step of time, from 1: later ones are missing in fits, scores, maps and
    served models alike. None: the whole season. `cropray season` tries several."""
    images_of: LocationSetting | None = None
    """Workspace of another job, whose composites and labels the dataset is built from; None: this job makes its own."""
    dataset_of: LocationSetting | None = None
    """Workspace of another job, whose dataset is trained on and tested, and whose finished fits are shared, so that another
    recipe repeats nothing of it; None: this job builds its own."""
    overwrite: bool = False
    """Make artefacts again even where they are up to date; finished units of a search stand: they are what a fit gave."""
    tracking_uri: str | None = None
    """MLflow server; None: SQLite in the workspace."""
    imagery: SourceSettings | None = None
    """Settings of one of the sources (`files`, `safe`, `stac`, `earth_engine`, `cubes`); None: the job reads `points`."""
    parcels: ParcelSettings | None = None
    points: PointsSettings | None = None
    dataset: DatasetSettings = DatasetSettings()
    search: SearchSettings = SearchSettings()
    decision: DecisionSettings = DecisionSettings()
    map: MapSettings = MapSettings()
    report: ReportSettings = ReportSettings()
    cluster: ClusterSettings = ClusterSettings()
    plan: PlanSettings | None = None
    """None: `cropray plan` estimates the job on the cluster at hand."""
    _left_out: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @field_validator("workspace", mode="before")
    @classmethod
    def _lasts(cls, workspace: object) -> object:
        """A submitted job runs in a folder that Ray made for it and removes with it."""
        text = str(workspace)
        if os.environ.get(_SUBMITTED) and "://" not in text and not Path(text).expanduser().is_absolute():
            raise ValueError(
                "a submitted job would lose a relative folder; give s3://bucket/…, or an absolute path that all nodes share"
            )
        return workspace

    @model_validator(mode="after")
    def _leave_out_what_the_data_cannot_give(self, info: ValidationInfo) -> Self:
        """Families that the job itself does not name, and features that say that they may be missing."""
        if info.context == _MODELS_OF_RECIPE:
            of_points = self.points is not None
            models, without = able(self.search.models, self.cube_spec, self.settings_of, of_points=of_points)
            if models and without:  # where none is left, what is wrong with them is said below
                self._change(search=self.search.model_copy(update={"models": models}))
                self._left_out["search.models"] = without
        for name in self.search.models:
            try:
                self._give_features(name)
            except ConfigError as error:
                raise ConfigError(f"{name}.{error}") from None
        return self

    def _give_features(self, name: str) -> None:
        """Spell a family's features, and the lists that are searched, by the bands of the cube."""
        settings, space = self.settings_of(name), self.search.space(name)
        if not isinstance(settings, PixelFamilySettings):
            return
        names, without = choose(settings.features, self.cube_spec)
        if names != settings.features:
            self._change(**{name: settings.model_copy(update={"features": names})})
        if isinstance(listed := space.searched().get("features"), tuple):
            lists = [choose(one, self.cube_spec) for one in listed]
            values = {"features": tuple(dict.fromkeys(one for one, _ in lists))}
            self._change(search=self.search.model_copy(update={name: space.model_copy(update=values)}))
            without = tuple(dict.fromkeys([*without, *(one for _, left in lists for one in left)]))
        if without:
            self._left_out[f"{name}.features"] = without

    def _change(self, **values: Settings) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def left_out(self) -> Mapping[str, Sequence[str]]:
        """Setting → what the data cannot give of it, each with its reason."""
        return self._left_out

    @property
    def left_out_in_words(self) -> list[str]:
        """A line for each list of them."""
        alike = {
            without: [s for s, other in self._left_out.items() if other == without]
            for without in self._left_out.values()
        }
        return [f"left out of {' and '.join(names)}: {', '.join(without)}" for without, names in alike.items()]

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.points is not None and (self.imagery is not None or self.parcels is not None):
            raise ValueError("'points' replaces 'imagery' and 'parcels'; give one or the other")
        tiled = [name for name in self.search.models if family(name).sample == "tile"]
        if self.points is not None and tiled:
            others = [name for name, each in families().items() if each.sample == "pixel"]
            raise ValueError(f"'points' have no tiles for {', '.join(tiled)}: set search.models to some of {others}")
        require_static(self.search.models, self.cube_spec)
        if not isinstance(self.workspace, Path) and self.tracking_uri is None:
            raise ValueError(
                "a workspace in object storage cannot hold MLflow's database: set 'tracking_uri' to a server"
            )
        if self.points is None and (self.imagery is None or self.parcels is None):
            raise ValueError("'imagery' and 'parcels' are both required (or 'points' instead)")
        return self

    @model_validator(mode="after")
    def _zones_from_one_place(self) -> Self:
        if self.zone_selection is None:
            return self
        if self.zone_table is not None:
            raise ValueError("'zone_selection' replaces 'zone_table'; give one or the other")
        if self.zone_selection.min_gap_m < self.dataset.buffer_m:
            raise ValueError(
                f"zone_selection.min_gap_m = {self.zone_selection.min_gap_m} is less than dataset.buffer_m = "
                f"{self.dataset.buffer_m:g}: chosen zones would be refused as too near; raise the one or lower the other"
            )
        return self

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> Self:
        if self.decision != DecisionSettings() and not self.search.oof_rows:
            raise ValueError("'decision' is learnt from out-of-fold predictions: set search.oof_rows above 0")
        return self

    @model_validator(mode="after")
    def _steps_that_there_are(self) -> Self:
        if (self.until_step or 0) > self.cube_spec.n_steps:
            raise ValueError(
                f"until_step = {self.until_step}, and the cube has {self.cube_spec.n_steps} steps: take one of them"
            )
        return self

    @model_validator(mode="after")
    def _bands_that_there_are(self) -> Self:
        if self.imagery is not None:
            self.imagery.require_bands(self.cube_spec)
        return self

    @property
    def cube_spec(self) -> CubeSpec:
        """Bands and steps of time of every pixel, and static features of points."""
        return self.cube.spec if self.points is None else self.points.of_cube(self.cube.spec)

    @property
    def artefacts(self) -> Workspace:
        """The workspace."""
        if self.images_of is None and self.dataset_of is None:
            return Workspace(self.workspace)
        return SharingWorkspace(self.workspace, self.images_of, self.dataset_of)

    def settings_of(self, model: str) -> FamilySettings:
        """How a family is trained."""
        settings: FamilySettings = getattr(self, model)
        return settings

    @property
    def uses_worker_groups(self) -> bool:
        """Whether Ray Train starts worker groups; otherwise units train inside their Tune trials."""
        return any(self.settings_of(model).num_workers > 0 for model in self.search.models)

    @model_validator(mode="wrap")
    @classmethod
    def _with_families(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read the job with the sections of all families that are known now, and with its recipe."""
        if cls is not JobConfig or isinstance(raw, JobConfig):
            return handler(raw)
        whole, context = complete_job(), None
        if isinstance(raw, dict) and isinstance(recipe := raw.get("recipe", STUDY), str) and not _has_secret(recipe):
            own = raw.get("search", {})
            context = _MODELS_OF_RECIPE if isinstance(own, Mapping) and "models" not in own else None
            raw = put_under(raw, read_recipe(recipe), whole)
        return cast("Self", whole.model_validate(raw, context=context))

    @model_validator(mode="after")
    def _search_what_is_free(self) -> Self:
        """A field that the job sets, or that its network lacks, is searched only where it lists values for it."""
        for name in self.search.models:
            space = self.search.space(name)
            own = self.settings_of(name)
            fixed = (own.model_fields_set | own.lacks()) - space.model_fields_set
            if found := fixed & space.searched().keys():
                spaces = {name: space.without(sorted(found))}
                self._change(search=self.search.model_copy(update=spaces))
            settings = self.settings_of(name)
            settings.builds_on(self.search.models)  # enough of them
            for trial in trials(family(name), settings, self.search, self.seed):
                self._require_features(name, settings.with_values(trial.values))
        return self

    def _require_features(self, name: str, settings: FamilySettings) -> None:
        try:
            settings.n_features(self.cube_spec)
        except ConfigError as error:
            of_recipe = (
                "" if self.recipe == STUDY else f"; the recipe is '{self.recipe}': set {name}.features in the job"
            )
            raise ConfigError(f"{name}.{error}{of_recipe}") from None

    @classmethod
    def whole(cls) -> type[Settings]:
        """With a section for each family."""
        return complete_job()

    def __reduce__(self) -> tuple[Any, ...]:
        """Its class is made for the families of this process: another one makes its own, and is told of what is registered."""
        return _made_again, (self.model_dump(mode="json"), registered(), entries_outside())


def _has_secret(address: str) -> bool:
    """Such an address is not looked at; the settings refuse it and name the field."""
    try:
        refuse_secrets(address)
    except ValueError:
        return True
    return False


def _made_again(
    values: dict[str, Any], families_of_sender: tuple[Family, ...], entries: Mapping[tuple[str, str], Any]
) -> JobConfig:
    for each in families_of_sender:
        register(each)
    take_over(entries)
    return complete_job().model_validate(values)  # its recipe is in the values, and its file may not be at hand here


def complete_job() -> type[JobConfig]:
    """The job's settings with a section for each family that is known now."""
    sections = tuple((name, each.settings) for name, each in families().items())
    return _complete_job(complete(), sections, tuple(SOURCES.known().items()))


@cache
def _complete_job(
    search: type[SearchSettings],
    sections: tuple[tuple[str, type[FamilySettings]], ...],
    sources: tuple[tuple[str, type[SourceSettings]], ...],  # noqa: ARG001  the class is made again for others
) -> type[JobConfig]:
    fields: dict[str, Any] = {name: (settings, settings()) for name, settings in sections}
    fields["imagery"] = (imagery_settings() | None, None)
    return create_model("JobConfig", __base__=JobConfig, __doc__=JobConfig.__doc__, search=(search, search()), **fields)
