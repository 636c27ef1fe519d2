"""Guarantees: each function names the statement of lggwjax/theory/README.md that it computes."""

from lggwjax.theory.bound import Assumption, Bound, GradientBound
from lggwjax.theory.complexity import homogeneous_ratio, nerc_bounds
from lggwjax.theory.domination import Domination, convex, envelope, strongly_convex
from lggwjax.theory.features import feature_width_bounds, last_layer_bound
from lggwjax.theory.generalization import excess_risk_bound
from lggwjax.theory.optimisation import gap_bound, mean_gradient_bound
from lggwjax.theory.sample_reuse import doubled_radius, exact_nerc_bound, nerc_bound, points_bound, split_bound

__all__ = [
    "Assumption",
    "Bound",
    "Domination",
    "GradientBound",
    "convex",
    "doubled_radius",
    "envelope",
    "exact_nerc_bound",
    "excess_risk_bound",
    "feature_width_bounds",
    "gap_bound",
    "homogeneous_ratio",
    "last_layer_bound",
    "mean_gradient_bound",
    "nerc_bound",
    "nerc_bounds",
    "points_bound",
    "split_bound",
    "strongly_convex",
]
