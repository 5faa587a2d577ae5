"""`cropray zones` for `ray job submit -- python ray_jobs/zones.py CONFIG.yaml [--set a.b=c]`."""

import sys

from cropray.cli import main

sys.exit(main(["zones", *sys.argv[1:]]))
