"""Submit a job, follow it, and stop it on Ctrl-C: `python ray_jobs/submit.py search_cnn CONFIG.yaml [--set a.b=c]`.

The same as `ray job submit`, which only stops to listen on Ctrl-C and calls a stopped job a success. It needs nothing
but Ray. The cluster is the one of RAY_API_SERVER_ADDRESS (or RAY_ADDRESS), as for `ray job`.
"""

import contextlib
import signal
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "job"]


def main(arguments: list[str]) -> int:
    """Exit code: 0 done, 1 failed or refused, 2 wrong command line, 130 stopped."""
    scripts = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.name != Path(__file__).name)
    if not arguments or arguments[0] not in scripts:
        print(
            f"usage: python ray_jobs/submit.py {{{','.join(scripts)}}} CONFIG.yaml [--set a.b=VALUE]", file=sys.stderr
        )
        return 2
    name = f"cropray-{arguments[0]}-{uuid.uuid4().hex[:8]}".replace("_", "-")
    job = ["python", f"ray_jobs/{arguments[0]}.py", *arguments[1:]]
    where = ["--working-dir", ".", "--runtime-env", "ray_jobs/runtime_env.yaml", "--submission-id", name]
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs begin with it ignored
        signal.signal(number, signal.default_int_handler)
    # A session of its own: the terminal's Ctrl-C reaches this process only, which then ends both in order.
    with subprocess.Popen([*RAY, "submit", *where, "--", *job], cwd=ROOT, start_new_session=True) as submission:
        try:
            code = submission.wait()
        except KeyboardInterrupt:
            return _stop(name, submission)
    return 130 if code == 0 and not _has_succeeded(name) else code


def _stop(name: str, submission: subprocess.Popen[bytes]) -> int:
    print(f"\nstopping job '{name}' (Ctrl-C again: leave it running)", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run([*RAY, "stop", name], check=False)
    submission.terminate()
    return 130


def _has_succeeded(name: str) -> bool:
    """Whether the job ended by itself; `ray job submit` does not tell that from a stop."""
    status = subprocess.run([*RAY, "status", name], capture_output=True, text=True, check=False)
    return "succeeded" in status.stdout + status.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
