"""Line charts as SVG, written by hand: loss on a logarithmic axis against what is saved, readable on light and dark."""

import math
from xml.sax.saxutils import escape

PANEL_WIDTH, PANEL_HEIGHT = 430, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 30, 44  # margins of a panel
LEGEND_LINE = 18
LEGEND_COLUMN = 425
COLOURS = ("#4e79a7", "#a0765a", "#8c8c8c", "#b07aa1", "#e0a030", "#3f9f6f", "#e0524f", "#2ca8b8", "#7f7fd5", "#c4618c")
DASHES = ("", "6 3", "2 3")
STYLE = """:root { color-scheme: light dark; } text { font: 12px system-ui, sans-serif; fill: #1d2125; }
.title { font-weight: 600; }
.axis { stroke: #1d2125; fill: none; } .grid { stroke: #c9ced3; } .paper { fill: #ffffff; }
.curve { fill: none; stroke-width: 2; } .spread { opacity: .45; }
@media (prefers-color-scheme: dark) { text { fill: #e4e7ea; } .axis { stroke: #e4e7ea; } .grid { stroke: #454b52; }
.paper { fill: #16191c; } }"""


class Axis:
    """From values to positions on `length` pixels."""

    def __init__(self, low, high, length, is_logarithmic=False):
        self.scale = math.log10 if is_logarithmic else float
        self.low, self.high, self.length, self.is_logarithmic = self.scale(low), self.scale(high), length, is_logarithmic

    def at(self, value):
        position = self.low if self.is_logarithmic and value <= 0 else self.scale(value)
        return self.length * min(max((position - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self):
        if self.is_logarithmic:
            return [10.0 ** exponent for exponent in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 8)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def decades(curves):
    values = [y for _, points in curves for _, y, *_ in points if y > 0]
    return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)))


class Panel:
    """One chart. `curves`: (title, [(x, y) or (x, y, low, high)]); equal titles have equal looks in all panels of a picture."""

    def __init__(self, title, curves, x_range, y_range=None):
        self.title, self.curves = title, curves
        self.x = Axis(*x_range, PANEL_WIDTH - LEFT - RIGHT)
        self.y = Axis(*(y_range or decades(curves)), PANEL_HEIGHT - TOP - BOTTOM, is_logarithmic=y_range is None)

    def decades(self):
        return decades(self.curves)

    def share_decades(self, low, high):
        """The vertical axis that all panels of a picture have."""
        low, high = 10.0 ** math.floor(math.log10(low) + 1e-9), 10.0 ** math.ceil(math.log10(high) - 1e-9)
        self.y = Axis(low, high, PANEL_HEIGHT - TOP - BOTTOM, is_logarithmic=True)

    def place(self, x, y):
        return LEFT + self.x.at(x), PANEL_HEIGHT - BOTTOM - self.y.at(y)

    def svg(self, x_title, y_title, looks):
        lines = [f'<text class="title" x="{LEFT}" y="{TOP - 12}">{escape(self.title)}</text>']
        right, bottom = PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM
        for tick in self.x.ticks():
            x, _ = self.place(tick, 0)
            lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
            lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
        for tick in self.y.ticks():
            _, y = self.place(0, tick)
            lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
            lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        lines.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
        lines.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{PANEL_HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
        middle = (TOP + bottom) / 2
        lines.append(f'<text transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>')
        for title, points in self.curves:
            lines += self._curve(title, sorted(points), looks[title])
        return "\n".join(lines)

    def _curve(self, title, points, look):
        places = [self.place(x, y) for x, y, *_ in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines = [f'<polyline class="curve" {look} points="{path}"><title>{escape(title)}</title></polyline>']
        for (x, _), (_, _, *spread) in zip(places, points):
            if spread:
                low, high = (self.place(0, value)[1] for value in spread)
                lines.append(f'<path class="spread" {look} d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" {look.replace("stroke=", "fill=")}/>' for x, y in places]
        return lines


def picture(panels, x_title, y_title):
    """Panels side by side with one legend under them."""
    titles = list(dict.fromkeys(title for panel in panels for title, _ in panel.curves))
    looks = {title: f'stroke="{COLOURS[i % len(COLOURS)]}"' + (f' stroke-dasharray="{DASHES[i // len(COLOURS)]}"'
                                                              if i >= len(COLOURS) else "") for i, title in enumerate(titles)}
    width = PANEL_WIDTH * max(len(panels), 2)
    columns = max(1, width // LEGEND_COLUMN)
    rows = -(-len(titles) // columns)
    height = PANEL_HEIGHT + 12 + LEGEND_LINE * rows
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_title)}">',
             f"<style>{STYLE}</style>", f'<rect class="paper" width="{width}" height="{height}"/>']
    for i, panel in enumerate(panels):
        lines.append(f'<g transform="translate({i * PANEL_WIDTH} 0)">\n{panel.svg(x_title, y_title, looks)}\n</g>')
    for i, title in enumerate(titles):
        x, y = 14 + LEGEND_COLUMN * (i % columns), PANEL_HEIGHT + 12 + LEGEND_LINE * (i // columns)
        lines.append(f'<path class="curve" {looks[title]} d="M{x} {y}h28"/><text x="{x + 36}" y="{y + 4}">{escape(title)}</text>')
    return "\n".join([*lines, "</svg>", ""])
