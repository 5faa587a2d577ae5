"""The figure of docs/architecture.md: rooms of the package, and which imports which."""

import json
from pathlib import Path

from PIL import Image

from tests.benchmarks.house import arrows, modules, reduced

_KEY = "arrows"  # text of the picture: what it shows
_WIDE, _PAST = 1.6, 0.55  # from one column to the next; half of what lies beside a column's boxes


def graph() -> dict[str, list[str]]:
    """Room → rooms that it imports; what follows from other arrows is left out."""
    return {room: sorted(targets) for room, targets in sorted(reduced(arrows(modules())).items())}


def shown(picture: Path) -> dict[str, list[str]]:
    """What a picture was drawn of."""
    with Image.open(picture) as image:
        return json.loads(image.text[_KEY])


def depths(rooms: dict[str, list[str]]) -> dict[str, int]:
    """Room → number of arrows of the longest way to the first."""
    found: dict[str, int] = {}
    while len(found) < len(rooms):
        for room, targets in rooms.items():
            if all(target in found for target in targets):
                found[room] = 1 + max((found[target] for target in targets), default=-1)
    return found


def places(rooms: dict[str, list[str]]) -> dict[tuple[str, int], float]:
    """(room, column) → height, of rooms and of the ways on which arrows to a room pass other columns.

    Each column is ordered by where its members lead, then by who leads to them.
    """
    depth = depths(rooms)
    links = {
        ((target, level), (room, level + 1) if level + 1 == depth[room] else (target, level + 1))
        for room, targets in rooms.items()
        for target in targets
        for level in range(depth[target], depth[room])
    }
    columns = [
        sorted(
            {end for link in links for end in link if end[1] == level}
            | {(r, d) for r, d in depth.items() if d == level}
        )
        for level in range(max(depth.values()) + 1)
    ]
    height = {end: i - (len(column) - 1) / 2 for column in columns for i, end in enumerate(column)}
    for turn in range(12):
        side = turn % 2  # where the others of a link are: before the column, or behind it
        for column in reversed(columns) if side else columns:
            others = {end: [height[link[side]] for link in links if link[1 - side] == end] for end in column}
            column.sort(key=lambda end, of=others: sum(of[end]) / len(of[end]) if of[end] else 0)
            height.update({end: i - (len(column) - 1) / 2 for i, end in enumerate(column)})
    return height


def draw(picture: Path) -> None:
    """Draw it."""
    from matplotlib.figure import Figure

    rooms = graph()
    depth, height = depths(rooms), places(rooms)
    figure = Figure(figsize=(15, 4.6))
    axes = figure.add_axes((0, 0, 1, 1))
    for room, targets in rooms.items():
        axes.text(
            _WIDE * depth[room], height[room, depth[room]], room, ha="center", va="center", fontsize=11, zorder=2,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "#eef3e6", "edgecolor": "#5b7a3a"},
        )  # fmt: skip
        for target in targets:
            ways = range(depth[target] + 1, depth[room])
            points = [(_WIDE * depth[target] + _half(target), height[target, depth[target]])]
            for level in ways:  # straight past a column, slanted between two
                points += [(_WIDE * level + side * _PAST, height[target, level]) for side in (-1, 1)]
            points.append((_WIDE * depth[room] - _half(room), height[room, depth[room]]))
            axes.plot(*zip(*points, strict=True), color="#888888", linewidth=1.1, zorder=1)
            axes.annotate(
                "", xy=points[0], xytext=points[1], arrowprops={"arrowstyle": "->", "color": "#888888"}, zorder=1
            )
    axes.set_xlim(-0.7, _WIDE * max(depth.values()) + 0.7)
    axes.set_ylim(*(sign * (max(height.values()) + 0.6) for sign in (-1, 1)))
    axes.axis("off")
    figure.savefig(picture, dpi=110, metadata={_KEY: json.dumps(rooms)})


def _half(room: str) -> float:
    """Half the width of a box."""
    return 0.1 + 0.042 * len(room)
