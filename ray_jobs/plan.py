"""`cropray plan` for `ray job submit -- python ray_jobs/plan.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["plan", *sys.argv[1:]]))
