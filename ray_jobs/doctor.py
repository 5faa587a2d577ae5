"""`cropray doctor` for `ray job submit -- python ray_jobs/doctor.py CONFIG.yaml [--set a.b=c]`."""

from cropray.cli import run_script

run_script(__file__)
