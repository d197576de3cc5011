"""What all plots share: a figure becomes inline SVG. The only module that loads matplotlib.

A plot takes its colours from the page, so it follows light, dark and print: matplotlib draws
with placeholder colours, which are replaced by CSS variables afterwards. Its text stays text in
the page's font. The same report gives the same bytes. Text from a device goes into a plot only
as plain ASCII: matplotlib would warn about missing glyphs and measure them wrong.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GRID",
    "INK",
    "MUTED",
    "OURS",
    "THEIRS",
    "WARM",
    "Drawn",
    "drawing",
    "is_wide",
    "logarithmic",
    "plain",
    "plots_available",
    "thin",
]

INK, MUTED, GRID, OURS, THEIRS, WARM = (f"#0{n}ed9e" for n in range(6))
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    OURS: "var(--ours)",
    THEIRS: "var(--theirs)",
    WARM: "var(--warm)",
}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
}
#: Narrow, so that its text is still read where it is scaled down to a telephone's width.
_WIDTH_IN = 4.6
_MOST_POINTS = 400
#: A ratio of the ends of an axis from which on it is logarithmic.
_WIDE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A plot for a page.

    ``svg`` is markup; ``caption`` is text: what the plot leaves out, or how to read it.
    """

    svg: str
    caption: str = ""


def plots_available() -> bool:
    """Say whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def drawing(
    height_in: float, name: str, into: list[str], *, gap_pt: float = 9.0
) -> Iterator[Figure]:
    """Give an empty figure and put its SVG into ``into`` afterwards.

    Args:
        height_in: Height in inches; the width is the same for all.
        name: Unique on the page: its ids begin with it.
        into: Takes the markup.
        gap_pt: Points between axes that stand under each other.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_IN, height_in))
        figure.patch.set_visible(False)
        yield figure
        _fit(figure, gap_pt)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    into.append(_inline(text.getvalue(), name))


def _fit(figure: Figure, gap_pt: float) -> None:
    """Leave room for labels beside, under and between axes.

    matplotlib's own layouts draw everything twice more to know this to the point.
    """
    shown = [axes for axes in figure.axes if axes.axison]
    left, bottom, top = 3.0, 3.0, 6.0
    for axes in shown:
        axis = axes.yaxis
        ticks = [float(tick) for tick in axis.get_majorticklocs()]
        texts = axis.get_major_formatter().format_ticks(ticks)
        longest = max((_width_pt(text) for text in texts), default=0.0)
        left = max(left, longest + 7 + (15 if axes.get_ylabel() else 0))
    if shown:
        last = shown[-1]
        bottom = 5.0 + (14 if len(last.get_xticks()) else 0) + (14 if last.get_xlabel() else 0)
        top += 12 if shown[0].get_title("left") else 0
    width, height = (72 * inches for inches in figure.get_size_inches())
    rows = max(len(figure.axes), 1)
    each = (height - bottom - top - gap_pt * (rows - 1)) / rows
    figure.subplots_adjust(
        left=left / width,
        right=1 - 12 / width,
        bottom=bottom / height,
        top=1 - top / height,
        hspace=gap_pt / each,
    )


def _width_pt(text: str) -> float:
    """Guess how wide a label is: browsers set it in a font of their own anyway."""
    return sum(3.2 if c in " .,:;|il1-()" else 5.9 for c in text)


def _inline(svg: str, name: str) -> str:
    """Strip what only a file of its own needs, and tie colours and font to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # it would hold for the whole page
    svg = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", svg)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {box.group() if box else ""} aria-hidden="true" focusable="false"'
    rest = re.sub(r'<g id="[^"]*">', "<g>", rest)
    rest = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'xlink:href="#', f'href="#{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", rest)
    rest = re.sub(r"\s*font-family:[^;\"]*;?", "", rest)
    # a tenth of a pixel is more than a screen shows
    rest = re.sub(r'\bd="[^"]*"', lambda path: _rounded(path.group()), rest)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", f"{head}>{rest}").strip()


def _rounded(path: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number.group()):.2f}", path)


def plain(text: str, limit: int = 14) -> str:
    """Give at most ``limit`` characters of ASCII, for text inside a plot."""
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return kept if len(kept) <= limit else f"{kept[: limit - 2]}.."


def is_wide(low: float, high: float) -> bool:
    """Say whether a linear axis would squeeze most of the values into its first bit."""
    return low > 0 and high / low > _WIDE


def logarithmic(axes: Axes, side: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set(**{f"{side}scale": "log"})
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the lowest and the highest point of each stretch, in order."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    kept = []
    size = len(points) / (_MOST_POINTS // 2)
    for i in range(_MOST_POINTS // 2):
        stretch = points[int(i * size) : int((i + 1) * size)]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept
