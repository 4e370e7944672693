"""Draws the packages of the library as an SVG: the same code gives the same bytes.

A package is a box that holds its modules and the packages in it. Rows are layers: whatever is
imported at run time lies below. Boxes that stand side by side import nothing from each other. An
arrow is left out where others lead the same way, by another package.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html import escape

from tests.house.code import Modules, import_graph, packages

Graph = Mapping[str, set[str]]

WIDTH = 1000
_GAP = 10  # between chips, and around what a box holds
_CHIP = 20  # the height of a module
_TITLE = 26  # the height of a box's title
_LINE = 15  # of a description
_BETWEEN = 46  # rows of packages, which arrows run between
_LANE = 14  # between arrows that run side by side
_LETTER = 6.7  # the width of a letter of a module's name
_SMALL = 6.3  # the same of a description, which is set in another font
_STYLE = """\
text { font: 11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2933 }
text.title { font-size: 12px; font-weight: bold }
text.about { font: 11.5px system-ui, 'Helvetica Neue', 'DejaVu Sans', sans-serif; fill: #5b6773 }
rect.paper { fill: #ffffff }
rect.box { fill: #3b82c4; fill-opacity: 0.08; stroke: #3b82c4; stroke-opacity: 0.55 }
rect.chip { fill: #ffffff; stroke: #b8c4d0 }
path { fill: none; stroke: #c8561d; stroke-width: 1.5; marker-end: url(#head0) }
path.to1 { stroke: #0f7c70; marker-end: url(#head1) }
path.types { stroke-dasharray: 4 3 }
marker path { stroke: none; marker-end: none }"""


# -- graphs --------------------------------------------------------------------------------


def contracted(graph: Graph, room_of: Callable[[str], str | None]) -> dict[str, set[str]]:
    """The graph of rooms that a graph of modules makes; modules without a room are left out."""
    rooms: dict[str, set[str]] = {}
    for module, others in graph.items():
        if (room := room_of(module)) is not None:
            reached = {room_of(other) for other in others}
            rooms.setdefault(room, set()).update(one for one in reached if one is not None)
    return {room: others - {room} for room, others in rooms.items()}


def reachable(graph: Graph, start: str) -> set[str]:
    """What a node leads to, by any number of arrows."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = set(graph.get(ahead.pop(), ())) - found
        found |= new
        ahead += new
    return found


def layers(graph: Graph) -> list[list[str]]:
    """The nodes of a graph without circles, sorted by how far they are from the ground; the top
    comes first. What stands in a circle comes to the ground.
    """
    height: dict[str, int] = {}

    def of(node: str, above: tuple[str, ...]) -> int:
        if node not in height:
            below = [one for one in graph.get(node, ()) if one != node and one not in above]
            height[node] = 1 + max((of(one, (*above, node)) for one in sorted(below)), default=-1)
        return height[node]

    rows: dict[int, list[str]] = defaultdict(list)
    for node in sorted(graph):
        rows[of(node, ())].append(node)
    return [rows[one] for one in sorted(rows, reverse=True)]


def reduced(graph: Graph) -> list[tuple[str, str]]:
    """The arrows that do not follow from others."""
    return sorted(
        (node, other)
        for node, others in graph.items()
        for other in others
        if not any(other in reachable(graph, one) for one in others - {other})
    )


# -- boxes ---------------------------------------------------------------------------------


@dataclass
class Box:
    """A package, or the modules of one that stand apart, with its place on the paper."""

    name: str
    title: str
    about: str = ""
    rows: list[list[str | Box]] = field(default_factory=list)  # of modules, or of boxes
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    chips: list[tuple[str, float, float, float]] = field(default_factory=list)

    @property
    def boxes(self) -> list[Box]:
        return [one for row in self.rows for one in row if isinstance(one, Box)]

    def every(self) -> Iterable[Box]:
        """This one, and all in it."""
        yield self
        for box in self.boxes:
            yield from box.every()

    @property
    def weight(self) -> float:
        """How wide it would be in one line, more or less."""
        own = sum(len(one) * _LETTER + 2 * _GAP for row in self.rows for one in row
                  if isinstance(one, str))  # fmt: skip
        return own + sum(box.weight for box in self.boxes)

    def place(self, x: float, y: float, width: float) -> None:
        """Give it, and all in it, a place of that width; its height follows."""
        self.x, self.y, self.width = x, y, width
        at = y + _TITLE + _LINE * len(self._lines())
        for row in self.rows:
            if isinstance(row[0], Box):
                at = _place_row([one for one in row if isinstance(one, Box)], self, at) + _GAP
            else:
                at = self._flow([one for one in row if isinstance(one, str)], at)
        self.height = at - y

    @property
    def _beside(self) -> float:
        """Where a description begins that stands beside the title."""
        return len(self.title) * (_LETTER + 0.8) + 2 * _GAP

    def _lines(self) -> list[str]:
        """The description, if it stands below the title."""
        if self._beside + len(self.about) * _SMALL + _GAP <= self.width:
            return []
        return textwrap.wrap(self.about, max(10, int((self.width - 2 * _GAP) / _SMALL)))

    def texts(self) -> list[tuple[str, float, float]]:
        """The lines of the description, and where they stand."""
        if lines := self._lines():
            first = self.y + 17 + _LINE
            return [(one, self.x + _GAP, first + _LINE * at) for at, one in enumerate(lines)]
        return [(self.about, self.x + self._beside, self.y + 17)] if self.about else []

    def _flow(self, names: list[str], y: float) -> float:
        x = self.x + _GAP
        for name in names:
            width = len(name) * _LETTER + 12
            if x + width > self.x + self.width - _GAP and x > self.x + _GAP:
                x, y = self.x + _GAP, y + _CHIP + 5
            self.chips.append((name, x, y, width))
            x += width + 6
        return y + _CHIP + _GAP


def _place_row(boxes: list[Box], inside: Box, y: float) -> float:
    """Boxes side by side, as high as the highest. Returns where they end."""
    right = 2 * _LANE if len(inside.boxes) > 1 else 0  # arrows run there
    room = inside.width - 2 * _GAP - right - _GAP * (len(boxes) - 1)
    _share(boxes, inside.x + _GAP, y, room, _GAP)
    return y + max(box.height for box in boxes)


def _share(boxes: list[Box], x: float, y: float, room: float, gap: float) -> None:
    weights = [max(box.weight**0.75, 1) for box in boxes]
    for box, weight in zip(boxes, weights, strict=True):
        width = round(room * weight / sum(weights))
        box.place(x, y, width)
        x += width + gap
    for box in boxes:
        box.height = max(one.height for one in boxes)


def box_of(modules: Modules, package: str) -> Box:
    """A package as a box, with what is in it in layers."""
    graph = import_graph(modules, types=False)

    def room_of(module: str) -> str | None:
        below = module.removeprefix(f"{package}.")
        return None if below == module else f"{package}.{below.partition('.')[0]}"

    box = Box(package, package.rpartition(".")[2] + "/", about(modules, package))
    for layer in layers(contracted(graph, room_of)):
        names: list[str | Box] = [one.rpartition(".")[2] for one in layer if one in graph]
        boxes: list[str | Box] = [box_of(modules, one) for one in layer if one not in graph]
        if names and box.rows and isinstance(box.rows[-1][0], str):
            box.rows[-1] += names
        elif names:
            box.rows.append(names)
        if boxes:
            box.rows.append(boxes)
    return box


def about(modules: Modules, package: str) -> str:
    """What the map that lists a package says of it; of the library, its first sentence."""
    outer, _, name = package.rpartition(".")
    if not outer:
        return (ast.get_docstring(modules[package].tree) or "").partition("\n")[0]
    text = ast.get_docstring(modules[outer].tree) or ""
    found = re.search(rf"^ +{name}/ +(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def house(modules: Modules, library: str) -> tuple[list[list[Box]], Graph, Graph]:
    """The rows of boxes of the whole library, and the arrows at run time and of types.

    The library's own modules are a box for themselves, below; those that import packages (such as
    ``__main__``) are another one, above.
    """
    graph = import_graph(modules, types=False)
    top = {one for one in packages(modules) if one.count(".") == 1}

    def room_of(module: str) -> str:
        package = ".".join(module.split(".")[:2])
        if package in top:
            return package
        uses = any(".".join(one.split(".")[:2]) in top for one in reachable(graph, module))
        return f"{library}^" if uses else library

    rooms = contracted(graph, room_of)
    boxes = {one: box_of(modules, one) for one in rooms if one in top}
    for room in set(rooms) - top:
        own = {one: graph[one] for one in graph if room_of(one) == room}
        names = [one.rpartition(".")[2] for row in layers(own) for one in row if one in own]
        what = "the modules that all packages build on" if room == library else "entry points"
        boxes[room] = Box(room, f"{library}/", what, [list(names)])
    rows = [[boxes[one] for one in layer] for layer in layers(rooms)]
    return rows, rooms, contracted(import_graph(modules), room_of)


# -- drawing -------------------------------------------------------------------------------


def draw(modules: Modules, library: str = "ion_actors") -> str:
    """The picture."""
    rows, graph, with_types = house(modules, library)
    arrows = reduced(graph)
    upwards = sorted(
        (one, other)
        for one, others in with_types.items()
        for other in others
        if one in reachable(graph, other)
    )
    row_of = {box.name: number for number, row in enumerate(rows) for box in row}
    far = [(one, other) for one, other in [*arrows, *upwards] if row_of[other] - row_of[one] != 1]
    lanes = {arrow: number for number, arrow in enumerate(far)}
    margin = _GAP + _LANE * ((len(far) + 1) // 2 + 1) if far else _GAP
    y = 2.0 * _GAP
    for row in rows:
        room = WIDTH - 2 * margin - 2 * _GAP * (len(row) - 1)
        _share(row, margin, y, room, 2 * _GAP)
        y += row[0].height + _BETWEEN
    height = round(y - _BETWEEN + 2 * _GAP)
    boxes = {box.name: box for row in rows for box in row}
    parts = [
        _HEAD.format(width=WIDTH, height=height, style=_STYLE, marker=_MARKER, library=library),
        *(_box(one) for row in rows for box in row for one in box.every()),
        *(_inner(modules, one) for row in rows for box in row for one in box.every()),
        *_outer(boxes, arrows, upwards, lanes),
        "</svg>\n",
    ]
    return "\n".join(part for part in parts if part)


_MARKER = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
aria-label="The packages of {library}">
<style>
{style}
</style>
<defs>
<marker id="head0" {marker}><path d="M0 0 8 4 0 8z" style="fill: #c8561d"/></marker>
<marker id="head1" {marker}><path d="M0 0 8 4 0 8z" style="fill: #0f7c70"/></marker>
</defs>
<rect class="paper" width="{width}" height="{height}" rx="8"/>"""


def _box(box: Box) -> str:
    parts = [
        f'<rect class="box" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" '
        f'height="{box.height:g}" rx="6"/>',
        f'<text class="title" x="{box.x + _GAP:g}" y="{box.y + 17:g}">{escape(box.title)}</text>',
    ]
    for text, x, y in box.texts():
        parts.append(f'<text class="about" x="{x:g}" y="{y:g}">{escape(text)}</text>')
    for name, x, y, width in box.chips:
        parts.append(
            f'<rect class="chip" x="{x:g}" y="{y:g}" width="{width:g}" height="{_CHIP}" rx="4"/>'
            f'<text x="{x + 6:g}" y="{y + 14:g}">{escape(name)}</text>'
        )
    return "\n".join(parts)


def _inner(modules: Modules, box: Box) -> str:
    """The arrows between the packages in a package: down its right side."""
    boxes = {one.name: one for one in box.boxes}
    if len(boxes) < 2:
        return ""

    def room_of(module: str) -> str | None:
        return next((one for one in boxes if module.startswith(f"{one}.")), None)

    # Also those ways that lead by a module in between.
    graph = contracted(import_graph(modules, types=False), room_of)
    parts = []
    for number, (one, other) in enumerate(reduced(graph)):
        start, end = boxes[one], boxes[other]
        x = start.x + start.width
        lane = x + _LANE * (1 + number % 2) - 4
        low, high = start.y + start.height - 12, end.y + 12
        parts.append(f'<path d="M{x:g} {low:g}H{lane:g}V{high:g}H{end.x + end.width + 1:g}"/>')
    return "\n".join(parts)


def _outer(
    boxes: Mapping[str, Box],
    arrows: list[tuple[str, str]],
    upwards: list[tuple[str, str]],
    lanes: Mapping[tuple[str, str], int],
) -> list[str]:
    """The arrows between the packages of the library: straight to the next row, else outside.

    Those that lead to the same package become one on the way, and have one colour.
    """
    targets = sorted({other for _, other in arrows}, key=lambda one: (boxes[one].y, boxes[one].x))
    ports = _ports(boxes, [*arrows, *upwards])
    parts = []
    for arrow in [*arrows, *upwards]:
        start, end = boxes[arrow[0]], boxes[arrow[1]]
        x, to = ports[arrow], round(end.x + end.width / 2)
        low, high = start.y + start.height, end.y - 1
        beside = [one for one in targets if boxes[one].y == end.y]
        place = beside.index(arrow[1]) if arrow[1] in beside else 0
        bend = high - 13 - 7 * (place % 3)
        kind = "types" if arrow in upwards else f"to{place % 2}"
        if arrow in lanes:
            number = lanes[arrow]
            far = _LANE * (1 + number // 2) - 4
            lane = WIDTH - far if number % 2 == 0 else far
            path = f"M{x:g} {low:g}V{low + 7:g}H{lane:g}V{bend:g}H{to:g}V{high:g}"
        else:
            path = f"M{x:g} {low:g}V{bend:g}H{to:g}V{high:g}"
        parts.append(f'<path class="{kind}" d="{path}"/>')
    return parts


def _ports(boxes: Mapping[str, Box], arrows: list[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Where each arrow leaves: those that go to the left, on the left."""
    ports = {}
    for name, box in boxes.items():
        leaving = [one for one in arrows if one[0] == name]
        leaving.sort(key=lambda one: (boxes[one[1]].x + boxes[one[1]].width / 2, one))
        for number, arrow in enumerate(leaving):
            ports[arrow] = round(box.x + box.width * (number + 1) / (len(leaving) + 1))
    return ports
