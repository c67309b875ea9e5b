"""Pages that show a circuit: one self-contained file each, readable without a network and without scripts."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
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
        "matrix": ("layer_map",),
        "figures": ("heat_maps", "jacobian_maps"),
    },
)
