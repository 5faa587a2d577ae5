"""`python -m tests.gpu`: whether a GPU computes what the CPU does, and how fast. Needs torch and numpy; xgboost for trees.

Prints one JSON document; progress goes to stderr. It takes at most six minutes and ends with 1 where a check is out of
tolerance or failed. `--cpu` runs everything in small with the CPU in the GPU's place, which shows that the script works.
"""

import argparse
import importlib.util
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback

BUDGET_S = 360
# In the order of their worth: what the time does not suffice for is skipped. Seconds are those that a check may take.
CHECKS = {
    "loop": 40, "resume": 40, "batch_norm": 10, "two_processes": 60, "windows": 40, "trees": 40,
    "rate_of_training": 60, "rate_of_mapping": 30, "rate_of_trees": 60,
}  # fmt: skip


def main():
    """Run the checks and print what they found."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="the CPU in the GPU's place, in small")
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="these checks only")
    options = parser.parse_args()
    missing = [name for name in ("torch", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        return _print({"skipped": f"{' and '.join(missing)} cannot be imported here"})
    import torch

    if not options.cpu and not torch.cuda.is_available():
        return _print({"skipped": f"torch {torch.__version__} sees no CUDA device here", "machine": machine(None)})
    device = torch.device("cpu" if options.cpu else "cuda")
    if options.cpu:
        torch.set_num_threads(1)  # so small a network is faster on one, and the machine may have other work
    signal.signal(signal.SIGALRM, _too_long)
    started = time.monotonic()
    found = {name: _run(name, device, started) for name in options.only or CHECKS}
    is_ok = all(check.get("ok", True) for check in found.values())
    return _print({"ok": is_ok, "machine": machine(device), "seconds": time.monotonic() - started, "checks": found})


def _print(document):
    print(json.dumps(document, indent=1))
    return 0 if document.get("ok", True) else 1


def _run(name, device, started):
    """One check, within the time that it may take."""
    left = BUDGET_S - (time.monotonic() - started)
    if left < CHECKS[name]:
        return {"skipped": f"{left:.0f} s of {BUDGET_S} are left, it may take {CHECKS[name]}"}
    if name.endswith("trees") and importlib.util.find_spec("xgboost") is None:
        return {"skipped": "xgboost cannot be imported here"}
    print(f"{time.monotonic() - started:6.1f} s  {name}", file=sys.stderr, flush=True)
    signal.alarm(int(min(left, 2 * CHECKS[name])))
    began = time.monotonic()
    try:
        outcome = _check(name)(_sizes(device), device)
    except Exception as error:  # a check that cannot run must not hide the others
        traceback.print_exc()
        outcome = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)
    return {**outcome, "seconds": round(time.monotonic() - began, 2)}


def _check(name):
    from tests.gpu import checks, rates

    rated = {"rate_of_training": rates.training, "rate_of_mapping": rates.mapping, "rate_of_trees": rates.trees}
    return rated.get(name) or getattr(checks, name)


def _sizes(device):
    from tests.gpu import drawn

    return drawn.SMALL if device.type == "cpu" else drawn.FULL


def _too_long(_signal, _frame):
    raise TimeoutError("it took more than twice the time that it may take")


def machine(device):
    """What the numbers belong to."""
    import numpy as np
    import torch

    said = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    said |= {"cuda": torch.version.cuda, "cpus": torch.get_num_threads()}
    if importlib.util.find_spec("xgboost") is not None:
        import xgboost

        said["xgboost"] = xgboost.__version__
        said["xgboost_cuda"] = bool(xgboost.build_info().get("USE_CUDA"))
    if device is None or device.type == "cpu":
        return said
    properties = torch.cuda.get_device_properties(0)
    said |= {"gpu": properties.name, "gpu_bytes": properties.total_memory, "gpus": torch.cuda.device_count()}
    return said | {"cudnn": torch.backends.cudnn.version(), "driver": _driver()}


def _driver():
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
