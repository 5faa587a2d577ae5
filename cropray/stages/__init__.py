"""The stages: what `cropray STAGE CONFIG` and `ray_jobs/STAGE.py` run."""
