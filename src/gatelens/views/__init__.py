"""Pages that show a circuit: one self-contained file each, readable without a network and without scripts.

Examples:
    >>> page = gl.views.page(circuit, unseen)  # .save("circuit.html") writes it
    >>> "IF_58 or IF_53" in page.text
    True
    >>> gl.views.gate(circuit.gate(2))
    OF_2 is on when IF_58 or IF_53 is on. Verified.
"""

from ..errors.door import behind
from ..lazy import lazy_names

__getattr__ = behind(
    lazy_names(
        __name__,
        {
            "document": ("Html",),
            "circuit_page": ("page",),
            "saved": ("saved_in",),
            "labelling": ("label",),
            "cards": ("card", "card_of"),
            "notebook": ("show",),
            "panels": ("panel", "token_panels"),
            "export": ("circuit_json", "feature_examples", "attribution_graph", "schema"),
            "picture": ("gate",),
            "svg": ("Drawing",),
            "known_features": ("known", "neighbourhood"),
            "figure_card": ("card_svg",),
            "diff": ("compare",),
            "prompt": ("prompt_page",),
            "live_prompt": ("live",),
            "matrix": ("layer_map",),
            "figures": ("heat_maps", "jacobian_maps"),
        },
    )
)
