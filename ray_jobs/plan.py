"""`cropray plan` for `ray job submit -- python ray_jobs/plan.py CONFIG.yaml [--set a.b=c]`."""

from cropray.cli import run_script

run_script(__file__)
