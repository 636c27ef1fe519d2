"""Whether any text of a figure can not be read."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text

from lggwjax.report.style import style


def overlaps(fig: Figure) -> list[str]:
    """Name the pairs of texts whose boxes meet, and the texts that leave the figure."""
    with style():
        fig.draw_without_rendering()
    hidden = set().union(*(_outside_ticks(ax) for ax in fig.axes))
    texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    found = [f"{a!r} meets {b!r}" for (a, p), (b, q) in itertools.combinations(boxes, 2) if p.overlaps(q)]
    frame = fig.bbox
    found += [
        f"{a!r} leaves"
        for a, p in boxes
        if p.x0 < frame.x0 - 1 or p.x1 > frame.x1 + 1 or p.y0 < -1 or p.y1 > frame.y1 + 1
    ]
    return found


def _outside_ticks(ax) -> set[Text]:
    """Labels of ticks beyond the limits, and of hidden shared axes, are never drawn."""
    hidden = set()
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not (min(low, high) <= tick.get_loc() <= max(low, high)) or not tick.label1.get_visible():
                hidden |= {tick.label1, tick.label2}
    return hidden
