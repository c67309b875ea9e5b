"""Jacobians of a segment: whole, a few random columns, or the active block between two dictionaries; and how sparse they are."""

from .columns import jacobian_columns as jacobian_columns
from .columns import scale_to_unit_rms as scale_to_unit_rms
from .features import ActiveBlock as ActiveBlock
from .features import active_block as active_block
from .features import feature_jacobian as feature_jacobian
from .nearby import points_near as points_near
from .products import pull as pull
from .products import push as push
from .sparsity import Sparsity as Sparsity
from .sparsity import sparsity as sparsity
