"""Registered models: one per dataset, a version per trained model, aliases on the best.

A version is found again by the hash of its files. An alias moves for a better version on the same dataset only, and never
from where a person has put it: where cropray itself put it last stands in a tag of the registered model.
"""

import json
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, ColSpec

from cropray.io.storage import folder_hash
from cropray.tracking.model_code import model_code
from cropray.tracking.outages import RefusedError
from cropray.tracking.records import Candidate, Merit, ModelForm

CHAMPION: Final = "champion"
MODEL_HASH_TAG: Final = "cropray.model_hash"
FAMILY_TAG: Final = "cropray.family"
DATASET_TAG: Final = "cropray.dataset"
OBJECTIVE_TAG: Final = "cropray.objective"
VALUE_TAG: Final = "cropray.objective_value"
RUN_TAG: Final = "cropray.key"
ALIAS_TAG: Final = "cropray.alias."  # + alias: version on which cropray has put it; `2>3` while it moves it
CARD_FILE: Final = "card.json"  # of every family's models
_EXAMPLE_PX: Final = 16  # height and width of the tile that shows how a model is asked
_EXAMPLE_VALUE: Final = 1500  # a reflectance of 0.15


@dataclass(frozen=True, slots=True)
class Registry:
    """The models of one experiment's store."""

    client: MlflowClient
    experiment_id: str
    name: str
    """Of the registered model."""

    def register(
        self, asked: Candidate, key: str, run_id: str, files: Callable[[], AbstractContextManager[Path]]
    ) -> list[str]:
        """Make a version, if the same files are none yet, and let the aliases move to it if it is better.

        Args:
            asked: the model.
            key: of the evaluation that it belongs to.
            run_id: the store's name of it.
            files: opens the model's folder.

        Returns:
            What is worth telling.

        Raises:
            RefusedError: the folder holds another model by now.
        """
        name, merit = self.name, asked.merit
        version, is_new = self._version(asked), False
        if version is None:
            version, is_new = self._make_version(asked, run_id, files), True
        tags = {
            MODEL_HASH_TAG: asked.content,
            FAMILY_TAG: merit.family,
            DATASET_TAG: merit.dataset,
            OBJECTIVE_TAG: merit.objective,
            VALUE_TAG: repr(merit.value),
            RUN_TAG: key,
        }
        for tag, value in tags.items():
            self.client.set_model_version_tag(name, version, tag, value)
        notes = [f"model '{name}': version {version} ({merit.family})"] if is_new else []
        notes += self._settle(asked, version, merit.family)
        return notes + self._settle(asked, version, CHAMPION)

    def _settle(self, asked: Candidate, version: str, alias: str) -> list[str]:
        """Put an alias where it belongs; returns what is worth telling."""
        model = self.client.get_registered_model(self.name)
        versions = {str(v.version): v for v in self._versions(f"name = '{self.name}'")}
        stands, recorded = _text(model.aliases.get(alias)), model.tags.get(f"{ALIAS_TAG}{alias}", "")
        best = self._best(asked, version, versions, alias, stands)
        if not _is_ours(stands, recorded, versions):
            where = f"stands on version {stands}" if stands else "was taken away"
            if best == stands:
                return []
            note = (
                f"model '{self.name}': alias '{alias}' {where}, by hand, and is left so; the best on this dataset is "
                f"version {best}. To let cropray move it again, delete the alias and the registered model's tag "
                f"'{ALIAS_TAG}{alias}'"
            )
            return [note]
        if best == stands and recorded == stands:
            return []
        tag = f"{ALIAS_TAG}{alias}"
        # Both ends first: a process that dies in between does not take its own move for a person's.
        self.client.set_registered_model_tag(self.name, tag, f"{stands or ''}>{best}")
        self.client.set_registered_model_alias(self.name, alias, best)
        self.client.set_registered_model_tag(self.name, tag, best)
        return [] if best == stands else [_moved(self.name, asked.merit, alias, versions.get(stands or ""), best)]

    def _best(
        self,
        asked: Candidate,
        version: str,
        versions: dict[str, ModelVersion],
        alias: str,
        stands: str | None,
    ) -> str:
        """The version that an alias belongs to; where it stands, if nothing is better."""
        merit = asked.merit
        rivals = {
            number: _value(v) if merit.greater_is_better else -_value(v)
            for number, v in versions.items()
            if _is_comparable(v, asked) and alias in (CHAMPION, v.tags[FAMILY_TAG])
        }
        if stands in versions and stands not in rivals and int(version) < int(stands):
            return stands  # of another dataset or objective, and newer
        if not rivals:  # an objective that is no number
            return stands or version
        return max(rivals, key=lambda number: (rivals[number], number == stands, -int(number)))

    def _versions(self, query: str) -> list[ModelVersion]:
        """All versions that a query finds, page by page."""
        found, token = [], None
        while True:
            page = self.client.search_model_versions(query, page_token=token)
            found += list(page)
            token = page.token
            if not token:
                return found

    def _version(self, asked: Candidate) -> str | None:
        """The version that was made from the same files."""
        query = f"name = '{self.name}' AND tags.`{MODEL_HASH_TAG}` = '{asked.content}'"
        return next((str(v.version) for v in self._versions(query)), None)

    def _make_version(self, asked: Candidate, run_id: str, files: Callable[[], AbstractContextManager[Path]]) -> str:
        """Store a model with the run's experiment and make it a version of the registered model."""
        with files() as folder:
            if folder_hash(folder) != asked.content:
                raise RefusedError(f"the files in '{folder}' are of another model by now")
            logged = self._logged_model(asked, run_id)
            if logged.status != LoggedModelStatus.READY:
                self._upload(asked, logged, folder)
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        # Not `models:/<id>`: MLflow would look that up in the process-wide store instead of this client's.
        source, tags = logged.artifact_location, {MODEL_HASH_TAG: asked.content}
        made = self.client.create_model_version(self.name, source, run_id, tags, model_id=logged.model_id)
        return str(made.version)

    def _logged_model(self, asked: Candidate, run_id: str) -> LoggedModel:
        """The model of the same files, begun or complete, or a new one."""
        query = f"name = '{asked.merit.family}' AND tags.`{MODEL_HASH_TAG}` = '{asked.content}'"
        found = self.client.search_logged_models([self.experiment_id], query, max_results=1)
        if found:
            return found[0]
        tags = {MODEL_HASH_TAG: asked.content}
        return self.client.create_logged_model(self.experiment_id, asked.merit.family, run_id, tags)

    def _upload(self, asked: Candidate, logged: LoggedModel, files: Path) -> None:
        code = model_code(asked.form.loader, _modules_of(files))
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example")
            mlflow.pyfunc.save_model(
                path=f"{scratch}/model",
                mlflow_model=Model(
                    logged.artifact_location, logged.source_run_id, model_uuid=logged.model_id, model_id=logged.model_id
                ),
                loader_module=code.loader,
                code_paths=[str(code.write(Path(scratch)))],
                data_path=str(files),
                signature=_signature(asked.form),
                input_example=_example(asked.form),
                pip_requirements=list(code.requirements),
                metadata={**asked.form.layout, "classes": list(asked.form.classes)},
            )
            self.client.log_model_artifacts(logged.model_id, f"{scratch}/model")
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _modules_of(model: Path) -> Sequence[str]:
    """Modules of plug-ins that a model's loader imports."""
    card = model / CARD_FILE
    return tuple(json.loads(card.read_text(encoding="utf-8")).get("modules", ())) if card.exists() else ()


def _text(version: object) -> str | None:
    return None if version is None else str(version)


def _is_ours(stands: str | None, recorded: str, versions: dict[str, ModelVersion]) -> bool:
    """Whether an alias is where cropray put it, or was about to."""
    before, _, after = recorded.rpartition(">")
    if stands is not None:
        return bool(recorded) and stands in (before, after)
    # Nowhere: never set, about to be set, or gone with a version that was deleted; otherwise a person took it away.
    return ">" in recorded or after not in versions


def _is_comparable(version: ModelVersion, asked: Candidate) -> bool:
    tags, merit = version.tags, asked.merit
    is_same = (tags.get(DATASET_TAG), tags.get(OBJECTIVE_TAG)) == (merit.dataset, merit.objective)
    return is_same and FAMILY_TAG in tags and math.isfinite(_value(version))


def _value(version: ModelVersion) -> float:
    try:
        return float(version.tags[VALUE_TAG])
    except (KeyError, ValueError):  # tags that a person has changed
        return math.nan


def _moved(name: str, merit: Merit, alias: str, before: ModelVersion | None, version: str) -> str:
    text = f"model '{name}': alias '{alias}' is on version {version}"
    if before is None:
        return text
    tags = before.tags
    if tags.get(DATASET_TAG) != merit.dataset:
        return f"{text}; version {before.version} before it was of another version of the dataset and is not compared"
    if tags.get(OBJECTIVE_TAG) != merit.objective:
        return f"{text}; version {before.version} before it had the objective {tags.get(OBJECTIVE_TAG)}, now {merit.objective}"
    return f"{text}, which is better than version {before.version} ({merit.objective} was {_value(before):.4f})"


def _signature(form: ModelForm) -> ModelSignature:
    """Columns by name, or axes.

    Columns are of any type: MLflow refuses integers where floats are named and the other way round; the model's own code
    looks at the values.
    """
    params = ParamSchema([ParamSpec("output", DataType.string, "probabilities")])
    if not form.columns:
        inputs = [TensorSpec(np.dtype(np.uint16), form.input_shape)]
        outputs = [TensorSpec(np.dtype(np.float32), form.output_shape)]
        return ModelSignature(Schema(inputs), Schema(outputs), params)
    columns = [ColSpec(AnyType(), name) for name in form.columns]
    return ModelSignature(Schema(columns), Schema([ColSpec(DataType.float, name) for name in form.classes]), params)


def _example(form: ModelForm) -> "pd.DataFrame | np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    """How the model is asked."""
    if form.columns:
        return pd.DataFrame([[_EXAMPLE_VALUE + i for i in range(len(form.columns))]], columns=list(form.columns))
    axes = [size if size > 0 else _EXAMPLE_PX for size in form.input_shape[1:]]
    return np.full((1, *axes), _EXAMPLE_VALUE, np.uint16)
