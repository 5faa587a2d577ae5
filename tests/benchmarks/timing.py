"""Timing for benchmarks that run on one thread: its processor time, alternating runs, the best of each.

Processor time does not count the waits for a processor that other programs hold.
"""

import time
from collections.abc import Callable, Mapping


def best_seconds(actions: Mapping[str, Callable[[], object]], n_rounds: Mapping[str, int]) -> dict[str, float]:
    """Least processor time of each action, after one untimed run of those that are timed more than once."""
    for name, action in actions.items():
        if n_rounds[name] > 1:
            action()
    best = dict.fromkeys(actions, float("inf"))
    for turn in range(max(n_rounds.values())):
        for name, action in actions.items():
            if turn < n_rounds[name]:
                start = time.thread_time()
                action()
                best[name] = min(best[name], time.thread_time() - start)
    return best


def print_table(title: str, seconds: Mapping[str, float], baseline: str, ours: str) -> float:
    """Print one line per action; returns baseline ÷ ours."""
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:<48} {value * 1000:>10.1f} ms   {seconds[baseline] / value:>7.1f} × {baseline}")
    return seconds[baseline] / seconds[ours]
