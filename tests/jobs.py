"""Whole jobs on a small drawn landscape: 2 regions × 3 zones of 32 px, a year of scenes."""

from pathlib import Path

import yaml

from cropray.landscape.draw import LandscapeFiles

SMALL_MODELS = {
    "search": {
        "models": ["xgboost", "cnn"],
        "cnn": {"learning_rate": [0.01], "kernel_size": [3]},
        "xgboost": {"n_estimators": [4, 8], "learning_rate": [0.3]},
    },
    "cnn": {"temporal_channels": 8, "unet_channels": [8, 8], "batch_size": 4, "epochs": 2},
    "xgboost": {"max_depth": 3},
}


def job(files: LandscapeFiles, workspace: Path, **changes) -> dict:
    """The content of a job file; `changes` replace top-level keys, None removes one."""
    content = {
        "name": "small",
        "workspace": str(workspace),
        "season_start": "2023-01",
        "zone_table": str(files.zones),
        "imagery": {"folder": str(files.scenes)},
        "parcels": {"path": str(files.parcels)},
        "dataset": {"tile_size": 16, "buffer_m": 100},
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
        **SMALL_MODELS,
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def write_job(content: dict, folder: Path) -> Path:
    """The job file."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
