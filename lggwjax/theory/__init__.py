"""Guarantees: each function names the statement of lggwjax/theory/README.md that it computes."""

from lggwjax.theory.affine import affine_supremum, least_squares_ball_nerc
from lggwjax.theory.bound import Assumption, Bound, GradientBound
from lggwjax.theory.complexity import chain_bounds, homogeneous_ratio, nerc_bounds, nerc_shapes
from lggwjax.theory.domination import Domination, convex, domination_ratios, envelope, strongly_convex
from lggwjax.theory.features import feature_width_bounds, last_layer_bound
from lggwjax.theory.generalization import excess_risk_bound
from lggwjax.theory.layers import LayerTable, layer_widths
from lggwjax.theory.local_ball import RegionWidths, envelope_bound, region_width_bound, region_widths
from lggwjax.theory.network_norms import LeafNorms, NetworkNorms, network_norms
from lggwjax.theory.optimisation import gap_bound, mean_gradient_bound
from lggwjax.theory.predictors import predictor_measures
from lggwjax.theory.regions import Region, ball, low_rank, random_subspace, segment
from lggwjax.theory.sample_reuse import doubled_radius, exact_nerc_bound, nerc_bound, points_bound, split_bound

__all__ = [
    "Assumption",
    "Bound",
    "Domination",
    "GradientBound",
    "LayerTable",
    "LeafNorms",
    "NetworkNorms",
    "Region",
    "RegionWidths",
    "affine_supremum",
    "ball",
    "chain_bounds",
    "convex",
    "domination_ratios",
    "doubled_radius",
    "envelope",
    "envelope_bound",
    "exact_nerc_bound",
    "excess_risk_bound",
    "feature_width_bounds",
    "gap_bound",
    "homogeneous_ratio",
    "last_layer_bound",
    "layer_widths",
    "least_squares_ball_nerc",
    "low_rank",
    "mean_gradient_bound",
    "nerc_bound",
    "nerc_bounds",
    "nerc_shapes",
    "network_norms",
    "points_bound",
    "predictor_measures",
    "random_subspace",
    "region_width_bound",
    "region_widths",
    "segment",
    "split_bound",
    "strongly_convex",
]
