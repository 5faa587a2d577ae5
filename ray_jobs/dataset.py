"""`cropray dataset` for `ray job submit -- python ray_jobs/dataset.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["dataset", *sys.argv[1:]]))
