"""Models: the protocol that every room asks of a model, our own hooked MLP, and loading."""

from ..lazy import lazy_names
from .calling import block_of as block_of
from .calling import entering_hook as entering_hook
from .calling import prove_padding as prove_padding
from .calling import run_cached as run_cached
from .calling import run_hooked as run_hooked
from .calling import starts_at as starts_at
from .placing import blockwise as blockwise
from .placing import device_named as device_named
from .placing import host as host
from .placing import place_of as place_of
from .placing import there as there
from .protocol import Model as Model
from .protocol import check_hook_names as check_hook_names
from .protocol import check_model as check_model
from .protocol import device_of as device_of
from .protocol import why_no_logits as why_no_logits

__getattr__ = lazy_names(
    __name__,
    {"mlp": ("HookedMLP",), "load": ("load_model",)},
)
