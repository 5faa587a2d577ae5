"""`cropray search` of one kind of model, for `ray job submit -- python ray_jobs/search_cnn.py CONFIG.yaml`."""

from cropray.cli import run_script

run_script(__file__)
