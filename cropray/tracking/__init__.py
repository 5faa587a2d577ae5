"""The one writer of tracking runs: search → configuration → fold, evaluations and registered models.

Comes in: results of searches and evaluations. Goes out: runs and versions in MLflow. May be added: a tag or a value of a
note (`records`).

What MLflow holds is a projection of the workspace: stages note what stands in no other artefact (`records`), the runs are
read from that and from results and evaluations (`projection`), and a store is brought up to date with them (`store`).
"""

import os

# MLflow decides about telemetry while it is imported, so this cannot wait for a function.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from cropray.tracking.records import (
    Candidate,
    EvaluationNote,
    Merit,
    ModelForm,
    ResultNote,
    RunningFold,
    SearchNote,
    as_keys,
)
from cropray.tracking.registry import CHAMPION
from cropray.tracking.tracker import UI_PORT, Tracker, beside_stages, local_uri, ui_command

__all__ = [
    "CHAMPION",
    "UI_PORT",
    "Candidate",
    "EvaluationNote",
    "Merit",
    "ModelForm",
    "ResultNote",
    "RunningFold",
    "SearchNote",
    "Tracker",
    "as_keys",
    "beside_stages",
    "local_uri",
    "ui_command",
]
