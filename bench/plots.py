"""Plots as SVG, written by hand: each works without colour, and its colours are the page's variables."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from html import escape

STAGES = ("read", "copy in", "step", "copy out", "code", "write", "waiting")
"""The stages of the engine's profile in the order of the work, and what is left of the wall clock."""

_LETTER = 6.7
"""About the width of a letter of the labels, whose size the page sets to 12."""

PATTERNS = """<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>
<pattern id="stage-read" width="4" height="4" patternUnits="userSpaceOnUse">
<path class="ground-a" d="M0 0h4v4H0z"/><path class="ink" d="M0 2h4"/></pattern>
<pattern id="stage-copy-in" width="5" height="5" patternUnits="userSpaceOnUse">
<path class="ground-b" d="M0 0h5v5H0z"/><circle class="dot" cx="2.5" cy="2.5" r="1.2"/></pattern>
<pattern id="stage-step" width="4" height="4" patternUnits="userSpaceOnUse">
<path class="ground-c" d="M0 0h4v4H0z"/></pattern>
<pattern id="stage-copy-out" width="6" height="6" patternUnits="userSpaceOnUse">
<path class="ground-b" d="M0 0h6v6H0z"/><path class="ink" d="M0 0l6 6M6 0l-6 6"/></pattern>
<pattern id="stage-code" width="6" height="6" patternUnits="userSpaceOnUse">
<path class="ground-d" d="M0 0h6v6H0z"/><path class="ink" d="M-1 7l8-8M-1 1l2-2M5 7l2-2"/></pattern>
<pattern id="stage-write" width="4" height="4" patternUnits="userSpaceOnUse">
<path class="ground-a" d="M0 0h4v4H0z"/><path class="ink" d="M2 0v4"/></pattern>
<pattern id="stage-waiting" width="4" height="4" patternUnits="userSpaceOnUse">
<path class="ground-e" d="M0 0h4v4H0z"/></pattern>
</defs></svg>"""


@dataclass(frozen=True)
class Point:
    """A setting in the plot of ratio against speed; `kind` is 'with', 'without', 'memory' or 'peer'."""

    label: str
    kind: str
    speed: float
    ratio: float


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def text(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    """Return a label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


def path(d: str, style: str) -> str:
    """Return a line."""
    return f'<path d="{d}" class="{style}"/>'


def picture(width: float, height: float, parts: list[str], words: str, style: str = "") -> str:
    """Return an SVG picture, with the words for those who do not see it."""
    return (
        f'<svg class="plot {style}" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" '
        f'role="img" aria-label="{escape(words)}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def mark(kind: str, x: float, y: float) -> str:
    """Return the mark of a kind of point: they differ in shape and in whether they are filled."""
    if kind in ("with", "without"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="mark {kind}"/>'
    if kind == "memory":
        return path(f"M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z", "mark memory")
    return path(f"M{x - 4.5:.1f} {y - 4.5:.1f}h9v9h-9z", "mark peer")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from low to high."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number of an axis."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio_against_speed(points: list[Point], width: float) -> str:
    """Return the scatter of ratio against the speed of compressing, which has a logarithmic axis."""
    height = 420.0
    left, right, top, bottom = 44.0, width - 12, 14.0, height - 44
    low, high = (f(math.log10(point.speed) for point in points) for f in (min, max))
    low, high = math.floor(low * 2 - 0.2) / 2, math.ceil(high * 2 + 0.2) / 2
    least, most = (f(point.ratio for point in points) for f in (min, max))
    margin = max(0.08 * (most - least), 0.05)
    least, most = max(0.0, least - margin), most + margin

    def place(point: Point) -> tuple[float, float]:
        across = (math.log10(point.speed) - low) / (high - low)
        up = (point.ratio - least) / (most - least)
        return left + across * (right - left), bottom - up * (bottom - top)

    parts = []
    for tick in ticks(least, most):
        y = bottom - (tick - least) / (most - least) * (bottom - top)
        parts += [path(f"M{left} {y:.1f}H{right}", "grid"), text(left - 6, y + 4, f"{tick:.3g}", "end")]
    for decade in range(math.ceil(low), math.floor(high) + 1):
        x = left + (decade - low) / (high - low) * (right - left)
        words = number(10**decade)
        # Beneath its line, or as near to that as the picture goes.
        middle = min(x, width - _LETTER * len(words) / 2)
        parts += [path(f"M{x:.1f} {top}V{bottom}", "grid"), text(middle, bottom + 18, words, "middle")]
    parts.append(path(f"M{left} {top}V{bottom}H{right}", "axis"))
    parts.append(text(right, height - 6, "KB/s of compressing", "end", "title"))
    parts.append(text(left + 6, top + 6, "ratio", "start", "title"))
    pairs = {point.label: point for point in points if point.kind == "without"}
    for point in points:
        if point.kind == "with" and point.label in pairs:
            (x, y), (x2, y2) = place(point), place(pairs[point.label])
            parts.append(path(f"M{x:.1f} {y:.1f}L{x2:.1f} {y2:.1f}", "pair"))
    marks = [mark(point.kind, *place(point)) for point in points]
    # A network has its label once, where it stands with the SEB.
    both = {point.label for point in points if point.kind == "with"} & pairs.keys()
    named = [point for point in points if not (point.kind == "without" and point.label in both)]
    taken = [_Box(x - 7, y - 7, x + 7, y + 7) for x, y in map(place, points)]
    taken.append(_Box(left, top - 6, left + 40, top + 10))
    area = _Box(left + 2, top, right + 8, bottom - 2)
    labels = _labels([(point.label, *place(point)) for point in named], taken, area)
    # The lines of the labels lie below the marks.
    parts += [label.draw() for label in labels] + marks
    words = "Ratio against speed. " + "; ".join(
        f"{point.label}{_KIND_WORDS[point.kind]}: ratio {point.ratio:.2f} at {number(point.speed)} KB/s"
        for point in points
    )
    return picture(width, height, parts, words)


_KIND_WORDS = {"with": " with the SEB", "without": " without the SEB", "memory": "", "peer": ""}


@dataclass(frozen=True)
class _Label:
    words: str
    x: float
    y: float
    start: float
    base: float
    cost: float

    def draw(self) -> str:
        """Return the label, with a line to its point where it does not stand beside it."""
        words = text(self.start, self.base, self.words)
        if self.cost < _BESIDE:
            return words
        end_x, end_y = self.end
        return path(f"M{self.x:.1f} {self.y:.1f}L{end_x:.1f} {end_y:.1f}", "leader") + words

    @property
    def end(self) -> tuple[float, float]:
        """Where the line to the label ends: at the side that is next to the point."""
        x = min(max(self.x, self.start), self.start + len(self.words) * _LETTER)
        if x != self.x:
            return x, self.base - 4
        return x, self.base + 3 if self.base < self.y else self.base - 11

    def line(self) -> list[_Box]:
        """Return what the line to the label covers, bit by bit."""
        if self.cost < _BESIDE:
            return []
        across, down = self.end[0] - self.x, self.end[1] - self.y
        bits = int(math.hypot(across, down) / 3)
        # The first bits are at the label's own point.
        places = [(self.x + across * bit / bits, self.y + down * bit / bits) for bit in range(4, bits)]
        return [_Box(x - 1, y - 1, x + 1, y + 1) for x, y in places]


_BESIDE = 4


def _labels(places: list[tuple[str, float, float]], taken: list[_Box], area: _Box) -> list[_Label]:
    """Return labels that cover no point and no other label, each near its own point.

    Each takes the nearest free spot, so that it matters whose turn comes first: of several orders the one
    whose labels stand nearest is taken.
    """
    shuffled = random.Random(0)
    best: list[_Label] = []
    for _ in range(24):
        found: list[_Label] = []
        boxes = list(taken)
        for words, x, y in places:
            found.append(_nearest(words, x, y, boxes, area))
            if best and sum(label.cost for label in found) >= sum(label.cost for label in best):
                break
        else:
            best = found
        shuffled.shuffle(places)
    return best


def _nearest(words: str, x: float, y: float, taken: list[_Box], area: _Box) -> _Label:
    """Return the label at the first free spot, which is then taken."""
    wide = len(words) * _LETTER
    spots = [(x + 9, y + 4), (x - 9 - wide, y + 4), (x - wide / 2, y - 10), (x - wide / 2, y + 20)]
    costs = list(range(_BESIDE))
    for far in range(20, 160, 6):
        for turn in range(16):
            across, down = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
            # From here the line ends at the label's near side.
            start = x + far * across - (0 if across > 0.1 else wide if across < -0.1 else wide / 2)
            spots.append((start, y + far * down + 4))
            costs.append(far)
    crossing = None
    for (start, base), cost in zip(spots, costs, strict=True):
        box = _Box(start - 1, base - 11, start + wide + 1, base + 3)
        inside = (
            box.left >= area.left
            and box.right <= area.right
            and box.top >= area.top
            and box.bottom <= area.bottom
        )
        if not inside or any(box.meets(other) for other in taken):
            continue
        label = _Label(words, x, y, start, base, cost)
        line = label.line()
        if not any(bit.meets(other) for bit in line for other in taken):
            taken += [box, *line]
            return label
        crossing = crossing or (box, replace(label, cost=cost + 200))
    # Amid other points, a line that crosses one is better than a label that covers it.
    if crossing is None:
        return _Label(words, x, y, *spots[0], 1000)
    taken.append(crossing[0])
    return crossing[1]


_PANEL = (170.0, 150.0)


def loss_panel(
    name: str, curves: dict[bool, tuple[list[float], int]], seen: float, most: float, lowest: float
) -> str:
    """Return a network's loss against bytes seen; `curves` has losses and bytes of each, by with the SEB.

    All panels share `seen`, the bytes of the longest curve, and the losses `most` and `lowest`.
    """
    width, height = _PANEL
    left, right, top, bottom = 20.0, width - 6, 22.0, height - 20
    parts = [text(left, 12, name, "start", "title")]

    def y_of(loss: float) -> float:
        return bottom - (loss - lowest) / (most - lowest) * (bottom - top)

    for tick in ticks(lowest, most, 5):
        parts.append(path(f"M{left} {y_of(tick):.1f}H{right}", "grid"))
        parts.append(text(left - 4, y_of(tick) + 4, f"{tick:g}", "end", "small"))
    for tick in ticks(0, seen / 1e3, 3):
        x = left + tick * 1e3 / seen * (right - left)
        words = f"{tick:g} KB" if tick else "0"
        parts.append(text(min(x, right - 14), bottom + 14, words, "middle", "small"))
    parts.append(path(f"M{left} {top}V{bottom}H{right}", "axis"))
    spoken = []
    # The dashed one comes last: where both are equal, the other shows through it.
    for with_it, (losses, group) in sorted(curves.items(), reverse=True):
        at = [left + (i + 0.5) * group / seen * (right - left) for i in range(len(losses))]
        line = "L".join(f"{x:.1f} {y_of(loss):.1f}" for x, loss in zip(at, losses, strict=True))
        parts.append(path("M" + line, "curve with" if with_it else "curve without"))
        kind = "with the SEB" if with_it else "without the SEB"
        spoken.append(f"{kind} from {losses[0]:.2f} to {losses[-1]:.2f} bits a byte")
    return picture(width, height, parts, f"Loss of {name}: {'; '.join(spoken)}", "panel")


def mask_panel(
    name: str, mask: list[float], kept: list[bool], before: list[float], dropped: list[bool]
) -> str:
    """Return the mask of a network's SEB, the newest patch on the left; a cross is where one was dropped."""
    width, height = _PANEL
    left, right, top, bottom = 20.0, width - 6, 22.0, height - 20
    parts = [text(left, 12, name, "start", "title")]

    def y_of(value: float) -> float:
        return bottom - value * (bottom - top)

    for tick in (0, 0.5, 1):
        parts.append(path(f"M{left} {y_of(tick):.1f}H{right}", "grid"))
        parts.append(text(left - 3, y_of(tick) + 4, f"{tick:g}"[-2:], "end", "small"))
    each = (right - left) / len(mask)
    for age, (value, keep, drop) in enumerate(zip(mask, kept, dropped, strict=True)):
        x, wide = left + age * each + 0.1 * each, 0.8 * each
        if drop:
            arm = min(wide, 6.0) / 2
            parts.append(path(_cross(x + wide / 2, bottom - 6, arm), "dropped"))
            continue
        style = "bar kept" if keep else "bar learned"
        parts.append(path(f"M{x:.1f} {bottom}V{y_of(value):.1f}h{wide:.1f}V{bottom}", style))
    start = next((value for value, keep in zip(before, kept, strict=True) if not keep), 0.5)
    parts.append(path(f"M{left} {y_of(start):.1f}H{right}", "begun"))
    parts.append(path(f"M{left} {bottom}H{right}", "axis"))
    parts.append(text(left, bottom + 14, "newest", "start", "small"))
    parts.append(text(right, bottom + 14, f"{len(mask) - 1} bytes older", "end", "small"))
    left_over = [both for both, drop in zip(zip(mask, kept, strict=True), dropped, strict=True) if not drop]
    learned = [value for value, keep in left_over if not keep]
    spoken = f"{len(left_over) - len(learned)} patches kept, {sum(dropped)} dropped"
    if learned:
        spoken += f", the others between {min(learned):.2f} and {max(learned):.2f}, from {start:.2f}"
    return picture(width, height, parts, f"Mask of {name}: {spoken}", "panel")


def _cross(x: float, y: float, arm: float) -> str:
    strokes = [f"M{x - arm:.1f} {y - rise:.1f}L{x + arm:.1f} {y + rise:.1f}" for rise in (arm, -arm)]
    return "".join(strokes)


def stage_shares(stages: dict[str, float], wall: float) -> dict[str, float]:
    """Return each stage's share of the wall clock, with what is left of it as waiting."""
    seconds = {name: stages.get(name, 0.0) for name in STAGES[:-1]}
    seconds["waiting"] = max(0.0, wall - sum(seconds.values()))
    # Where stages overlap, they take longer together than the wall clock.
    total = sum(seconds.values()) or 1.0
    return {name: spent / total for name, spent in seconds.items()}


def stage_bars(bars: list[tuple[str, dict[str, float], float]], width: float) -> str:
    """Return a bar of shares for each name, with its seconds."""
    each = 36.0
    height = each * len(bars) + 22
    parts, spoken = [], []
    for index, (name, shares, seconds) in enumerate(bars):
        y = index * each
        parts.append(text(0, y + 14, name))
        parts.append(text(width, y + 14, f"{seconds:.3g} s", "end"))
        x = 0.0
        for stage, share in shares.items():
            wide = share * width
            if wide >= 0.3:
                fill = f"url(#stage-{stage.replace(' ', '-')})"
                box = f"M{x:.1f} {y + 18:.1f}h{wide:.1f}v13h-{wide:.1f}z"
                parts.append(f'<path d="{box}" class="stage" fill="{fill}"/>')
            x += wide
        told = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in shares.items() if share >= 0.005)
        spoken.append(f"{name}: {told} of {seconds:.3g} s")
    for quarter in range(5):
        x = width * quarter / 4
        anchor = ("start", "middle", "middle", "middle", "end")[quarter]
        parts.append(text(x, height - 4, f"{25 * quarter} %", anchor, "small"))
    return picture(width, height, parts, "Time by stage. " + "; ".join(spoken))
