"""From sets to numbers with error bars. Knows no gradients."""

from lggwjax.widths import closed_form
from lggwjax.widths.estimate import Estimate, Interval, WidthEstimate
from lggwjax.widths.finite import gaussian_width, width_from_gram
from lggwjax.widths.streamed import RunningExtremes, update_extremes, width_from_extremes

__all__ = [
    "Estimate",
    "Interval",
    "RunningExtremes",
    "WidthEstimate",
    "closed_form",
    "gaussian_width",
    "update_extremes",
    "width_from_extremes",
    "width_from_gram",
]
