"""`cropray evaluate` for `ray job submit -- python ray_jobs/evaluate.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
