"""`cropray map` for `ray job submit -- python ray_jobs/map.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["map", *sys.argv[1:]]))
