"""`cropray evaluate` for `ray job submit -- python ray_jobs/evaluate.py CONFIG.yaml [--set a.b=c]`."""

from cropray.cli import run_script

run_script(__file__)
