"""page: a circuit with its evidence, as one self-contained file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .. import __version__
from ..activations import Activations
from ..activations.collecting import with_origins
from ..basis.linear import basis_kind
from ..basis.output import at_output
from ..circuits import Circuit
from ..data import Batches
from ..data.told import Tokenizer, tokenizer_of
from ..errors.progress import bar
from ..evaluation.report import Report
from ..models import Model
from .cards import lead_key
from .document import Html, document, fragment
from .drawing import glyph_symbols
from .examples import source_of_examples
from .explained import explained, sentence_of
from .figures import jacobian_maps, report_tables
from .glossary import words
from .legend import listed
from .panels import bundle
from .prompt import prompt_parts, readable
from .sections import Maker
from .summary import plain_sentence, sentence, tiles, title_of, what_of

#: what stands in the place of how much the gates account for while that is being measured
PENDING = "Still being measured: baselines, how much of the MLP these gates account for, and the curves. Load this page again later."
#: gates that a page leads with
BEST = 6


def page(
    circuit: Circuit,
    acts: Activations,
    report: Report | Mapping[str, Any] | None = None,
    *,
    batches: Batches | None = None,
    model: Model | None = None,
    tokenizer: Tokenizer | None = None,
    title: str | None = None,
    max_cards: int = 50,
    labels: Callable[[str, int], str] | None = None,
    token_panels: bool = False,
    trace: Sequence[Any] | Mapping[str, Any] | None = None,
    rotations: Mapping[str, Any] | None = None,
    saved: Mapping[str, Any] | None = None,
    pending: bool = False,
    prompts: Sequence[Any] = (),
) -> Html:
    """Everything about a circuit that a person wants to look at, in one file.

    Args:
        circuit: segments, bases, connectors and gates.
        acts: held-out activations at the segments' hook points.
        report: an `evaluation.Report`, or a mapping with the keys of report.json.
        batches: the held-out data; float inputs [n, d] of square images are shown as pictures.
        model: for pixel fields, logit effects and Jacobians, and for its tokenizer; None leaves them out.
        tokenizer: when the model has none of its own and the rows are tokens.
        max_cards: gates shown with examples, the best of each segment by evidence; the index lists all there are.
        labels: (hook name, feature) -> a name for it, shown as text, such as `gl.label` gives; features without one are labelled
            with the tokens (or classes) on which they fire most.
        token_panels: draw the strongest contexts with circuitsvis too; its bundle adds 1.3 MB, once.
        trace: connectors or matrices [out, in] as a fit went (`SgdL1.trace`), for a slider over its steps; a mapping
            segment name -> such a list where there are several segments.
        saved: pins and names that a reader kept in an earlier copy of the page (`views.saved_in` reads them).
        pending: baselines, coverage and curves are still being measured; the page says so.
        prompts: texts (token ids, images) that the page holds a reading of, in a tab of their own; they need `model`.
        rotations: segment name -> `JacobianPicture`, drawn in place of the Jacobians averaged over rows.
    """
    drawn = Drawn(circuit, acts, batches, model, tokenizer, max_cards, labels, token_panels, trace, prompts)
    return drawn.page(report, title, rotations or {}, saved or {}, pending)


class Drawn:
    """The cards of a circuit, and prompts: what of its page does not depend on the report, drawn once for a page now and one later.

    Args as those of `page`.
    """

    def __init__(
        self,
        circuit: Circuit,
        acts: Activations,
        batches: Batches | None = None,
        model: Any = None,
        tokenizer: Any = None,
        max_cards: int = 50,
        labels: Callable[[str, int], str] | None = None,
        token_panels: bool = False,
        trace: Any = None,
        prompts: Sequence[Any] = (),
    ):
        self.circuit, self.acts, self.model = circuit, acts, model
        tokenizer = tokenizer if tokenizer is not None else tokenizer_of(model)
        source = source_of_examples(acts, batches, model, tokenizer, circuit)
        given = readable(model, prompts)
        with bar(room="drawing"):
            maker = Maker(circuit, acts, source, model, tokenizer, labels, token_panels, trace)
            self.sections = maker.sections(max_cards)
            self.read = prompt_parts(circuit, model, given, acts, {s.name: s.known for s in self.sections})

    def page(
        self,
        report: Report | Mapping[str, Any] | None,
        title: str | None,
        rotations: Mapping[str, Any],
        saved: Mapping[str, Any],
        pending: bool,
    ) -> Html:
        """All of it in one file, with the figures of a report."""
        circuit, sections, read = self.circuit, self.sections, self.read
        figures = {} if report is None else dict(report.to_dict() if isinstance(report, Report) else report)
        best = sorted((c for s in sections for c in s.best), key=lambda c: lead_key(c.gate))[:BEST]
        title = title or title_of(circuit, figures)
        body = fragment(
            "page.html.j2",
            symbols=glyph_symbols(),
            title=title,
            what=what_of(circuit, self.acts, figures),
            explains=sentence_of(figures),
            sentence=sentence(circuit, figures),
            tiles=tiles(circuit, figures),
            best=best,
            best_title=_best_title([c.sketch.grade for c in best]),
            plain=PENDING if pending else plain_sentence(figures),
            glossary=words(),
            segments=sections,
            figures=explained(figures) + report_tables(figures),
            jacobians=_jacobians(circuit, self.acts, self.model, rotations, figures.get("rotations") or {}),
            rows=None if (known := with_origins(self.acts)) is None else known.rows,
            prompts=read,
            legend=listed(frozenset[str]().union(*(s.marks for s in sections))),
            prompt_legend=listed(frozenset[str]().union(*(p.marks for p in read))),
            version=__version__,
        )
        data = {name: props for s in sections for name, props in s.data.items()}
        data |= {f"p{number}-at-strip": p.strip for number, p in enumerate(read)}
        packs = {name: bodies for s in sections for name, bodies in s.packs.items()}
        packs |= {f"index-{s.anchor}": s.index() for s in sections}
        return document(title, body, data | {"saved": dict(saved)}, [bundle()] if data else [], packs)


def _best_title(grades: list[str]) -> str:
    if "verified" in grades:
        return "What was read: the best gates"
    if "holds" in grades:
        return "What was read: rules that hold, none verified"
    return "What was found: no rule holds; the best of the weak ones"


def _jacobians(
    circuit: Any, acts: Any, model: Any, rotations: Mapping[str, Any], report: Mapping[str, Any]
) -> list[tuple[str, Markup]]:
    """(segment, drawing): before and after a rotation; else averaged maps, where the model is at hand and features are few."""
    from .jacobians import rotation_panel

    drawn = []
    for s in circuit.segments:
        ends = circuit.bases[s.hook_in], circuit.bases[s.hook_out]
        own = all(basis_kind(basis) == "neurons" for basis in ends)
        if s.name in rotations:
            drawn.append((s.name, rotation_panel(rotations[s.name], report)))
        elif model is not None and not own and at_output(ends[1]).reads_output:
            drawn.append((s.name, jacobian_maps(s, *ends, acts[s.hook_in])))
    return [(name, markup) for name, markup in drawn if markup]
