"""`cropray acquire` for `ray job submit -- python ray_jobs/acquire.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["acquire", *sys.argv[1:]]))
