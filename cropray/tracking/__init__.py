"""The one writer of tracking runs: search → configuration → fold, evaluations and registered models.

Comes in: results of searches and evaluations. Goes out: runs and versions in MLflow. May be added: a tag or a value of a record (`records`).

A write is a record (`operations`) that is applied to the store (`store`). What the store does not take is kept in the
workspace (`spool`) and applied later, in order.
"""

import os

# MLflow decides about telemetry while it is imported, so this cannot wait for a function.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from cropray.core.redaction import redact
from cropray.tracking.operations import flatten
from cropray.tracking.records import EvaluationRecord, FoldRecord, Merit, ModelForm, ModelPackage, Run
from cropray.tracking.registry import CHAMPION
from cropray.tracking.tracker import UI_PORT, Tracker, local_uri, outcome, ui_command

__all__ = [
    "CHAMPION",
    "UI_PORT",
    "EvaluationRecord",
    "FoldRecord",
    "Merit",
    "ModelForm",
    "ModelPackage",
    "Run",
    "Tracker",
    "flatten",
    "local_uri",
    "outcome",
    "redact",
    "ui_command",
]
