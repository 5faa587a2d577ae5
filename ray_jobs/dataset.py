"""`cropray dataset` for `ray job submit -- python ray_jobs/dataset.py CONFIG.yaml [--set a.b=c]`."""

from cropray.cli import run_script

run_script(__file__)
