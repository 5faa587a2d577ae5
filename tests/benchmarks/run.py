"""Run every benchmark beside this file: `python tests/benchmarks/run.py`.

Exit code 1 where a wanted ratio is missed.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Each benchmark runs in a process of its own; all run even if one fails."""
    failed = []
    for path in sorted(HERE.glob("bench_*.py")):
        module = f"tests.benchmarks.{path.stem}"
        if subprocess.run([sys.executable, "-m", module], cwd=HERE.parents[1], check=False).returncode:
            failed.append(path.name)
    print(f"\nmissed or failed: {', '.join(failed)}" if failed else "\nall benchmarks reach what they must")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
