"""Whether an exported model does what the trained one did: their scores compared, for the next
token, for labels, or of answers.

The distance of two models is the root mean square of the difference of their logits, each
position's mean taken off (it changes no probability), relative to that of the trained model's
logits. 0 is the same model; two unrelated models are about 1.4 apart.

What an exported model has learned is the part of the way from the base to the trained model that
it has gone: 0 is the base, 1 the trained model. Rounding goes in all directions and hardly
changes it, so it also tells a short training from none.

Scores for labels and of answers mean something by themselves: no mean is taken off."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.errors import ExportError
from core.export.precision import GGUF, PRECISIONS
from core.language import _
from core.models.labels import Labels, read_labels
from core.worker.models.classifier import given, probabilities

# A choice is clear when the first token leads the second by so many times the allowed distance.
_CLEAR = 4
# With more allowed, hardly a choice would be clear: this counts, and a few may be others.
_MOST_FOR_WORDS, _LEAST_WORDS = 0.3, 0.9
# A trained model nearer than this to its base is its base.
SAME = 1e-6
# The share of what was learned that an export has to carry, and may.
_LEAST, _MOST = 0.75, 1.25
# Room for the logits of one model, in bytes, and for what is computed of them at a time.
_LOGIT_BYTES, _PIECE_BYTES = 32 * 2**20, 4 * 2**20


@dataclass(frozen=True)
class Check:
    """One thing that was checked, and what was found."""

    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


def most_places(vocabulary: int, rows: int) -> int:
    """Of how many tokens of each row the logits are kept: all together take 32 MiB at most."""
    return max(1, _LOGIT_BYTES // (4 * vocabulary * rows))


@torch.inference_mode()
def next_token_logits(model: Any, rows: Sequence[list[int]]) -> Any:
    """Logits at the last tokens of each row, float32 on the CPU: (positions, vocabulary).

    As many positions as fit into 32 MiB, the same number from each row.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    most = most_places(int(model.get_input_embeddings().weight.shape[0]), len(rows))
    longest = max(map(len, rows))
    # From the end, as virtual tokens may come before a row.
    places = [range(max(0, len(row) - most) - longest, len(row) - longest) for row in rows]
    if "logits_to_keep" not in inspect.signature(plain.forward).parameters:
        alone = (torch.tensor([row], device=model.device) for row in rows)
        answers = [model(input_ids=ids, use_cache=False).logits[0] for ids in alone]
        return torch.cat([one[-most:].float().cpu() for one in answers])
    # All at once, so that weights that are widened are so once; what fills a row up stands behind
    # it, where a model does not look.
    asked = sorted({place for own in places for place in own})
    ids = torch.tensor([[*row, *row[-1:] * (longest - len(row))] for row in rows])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    logits = model(
        input_ids=ids.to(model.device),
        attention_mask=real.to(model.device),
        use_cache=False,
        logits_to_keep=torch.tensor(asked, device=model.device),
    ).logits
    at = {place: number for number, place in enumerate(asked)}
    own = [[at[place] for place in places_of_row] for places_of_row in places]
    return torch.cat([one[some].float().cpu() for one, some in zip(logits, own, strict=True)])


def distance(logits: Any, reference: Any) -> float:
    """How far one model is from another, as the module's docstring defines it."""
    apart = whole = torch.zeros((), dtype=torch.float64)
    for one, other in in_pieces(logits, reference):
        apart = apart + (_centred(one) - _centred(other)).pow(2).sum(dtype=torch.float64)
        whole = whole + _centred(other).pow(2).sum(dtype=torch.float64)
    return float((apart / whole).sqrt())


def learned_share(exported: Any, trained: Any, base: Any) -> float:
    """How much of the way from the base to the trained model the exported one has gone."""
    gone = way = torch.zeros((), dtype=torch.float64)
    for one, goal, start in in_pieces(exported, trained, base):
        step = _centred(goal - start)
        gone = gone + (_centred(one - start) * step).sum(dtype=torch.float64)
        way = way + step.pow(2).sum(dtype=torch.float64)
    return float(gone / way)


def in_pieces(*logits: Any) -> Iterator[tuple[Any, ...]]:
    """Some places of each at a time, so that nothing as large as all of them is computed."""
    places = max(1, _PIECE_BYTES // (4 * logits[0].shape[-1]))
    return zip(*(one.split(places) for one in logits), strict=True)


def check_trained(base: Any, trained: Any) -> Check:
    """That training changed the answers. Raises ExportError when it did not."""
    apart = distance(base, trained)
    if not apart > SAME:
        raise ExportError(
            _("The trained model answers exactly as its base: there is nothing to export."),
            _("Look at the run's loss; train longer or with a higher learning rate."),
        )
    return Check(_("Differs from its base"), True, _("logits {apart} apart", apart=_percent(apart)))


def check_combined(combined: Any, exact: Any, kind: str) -> Check:
    """How far combined adapters are from their weighted sum, which `cat` must be. Raises
    ExportError."""
    apart, allowed = distance(combined, exact), PRECISIONS["float16"].allowed
    if kind == "cat" and not apart <= allowed:
        raise ExportError(
            _(
                "The combined adapter is not the sum of its parts: its logits are {apart} off, "
                "where {allowed} are allowed.",
                apart=_percent(apart),
                allowed=_percent(allowed),
            ),
            _("Report this: it should not."),
        )
    return Check(
        _("Combines the adapters"),
        True,
        _("logits {apart} from those of their exact sum", apart=_percent(apart)),
    )


def check_exported(exported: Any, trained: Any, base: Any, precision: str) -> list[Check]:
    """That the exported model is the trained one and not its base. Raises ExportError if not.

    `precision` names how the exported weights are held.
    """
    apart, learned = distance(exported, trained), learned_share(exported, trained, base)
    allowed = PRECISIONS[precision].allowed
    if not _LEAST < learned < _MOST:
        raise _not_learned(learned, precision)
    if not apart <= allowed:
        raise ExportError(
            _(
                "The exported model does not answer as the trained one: its logits are {apart} "
                "off, where {dtype} allows {allowed}.",
                apart=_percent(apart),
                dtype=precision,
                allowed=_percent(allowed),
            ),
            _way_on(precision),
        )
    return [
        Check(
            _("Answers as the trained model"),
            True,
            _(
                "logits {apart} apart, where {dtype} allows {allowed}",
                apart=_percent(apart),
                dtype=precision,
                allowed=_percent(allowed),
            ),
        ),
        Check(
            _("Carries what was learned"),
            True,
            _(
                "{learned:.0f} % of the way from the base to the trained model",
                learned=100 * learned,
            ),
        ),
        _check_words(exported, trained, precision),
    ]


def _check_words(exported: Any, trained: Any, precision: str) -> Check:
    """That it would write the same next tokens. Raises ExportError."""
    allowed = PRECISIONS[precision].allowed
    same, clear = _same_words(exported, trained, min(allowed, _MOST_FOR_WORDS))
    loose = allowed > _MOST_FOR_WORDS
    if same < clear * (_LEAST_WORDS if loose else 1):
        raise ExportError(
            _(
                "The exported model would write another word at {wrong} of {clear} places.",
                wrong=clear - same,
                clear=clear,
            ),
            _way_on(precision),
        )
    return Check(
        _("Chooses the same next token"),
        True,
        _(
            "at each of the {clear} places, of {total}, where the choice is clear",
            clear=clear,
            total=len(trained),
        )
        if same == clear
        else _(
            "at {same} of the {clear} places, of {total}, where the choice is clear",
            same=same,
            clear=clear,
            total=len(trained),
        ),
    )


def _way_on(precision: str) -> str:
    """What to do where weights held so are too far from the trained ones."""
    if PRECISIONS[precision] in GGUF:
        larger = [one.name for one in GGUF if one.bits > PRECISIONS[precision].bits]
        return _("Take a larger kind: {names}.", names=", ".join(larger) or "f32")
    if precision == "onnx_int8":
        return _("Take fp32.")
    if precision == "onnx_fp32":
        return _("Export it as a merged model.")
    return _("Export as float32, or export the adapter.")


def _not_learned(learned: float, dtype: str) -> ExportError:
    """What to say of an export that carries little of what was learned, or too much."""
    if abs(learned) < 0.1:
        message = _(
            "The exported model equals its base: it carries {share:.0f} % of what was learned.",
            share=100 * learned,
        )
    else:
        message = _(
            "The exported model is not the trained one: it carries {share:.0f} % of what was "
            "learned.",
            share=100 * learned,
        )
    if PRECISIONS[dtype] in GGUF:
        return ExportError(message, _way_on(dtype))
    if dtype == "float32":
        return ExportError(message, _("Try another checkpoint, or export the adapter."))
    hint = _(
        "What was learned may be smaller than {dtype} can hold: export as float32, or train "
        "longer.",
        dtype=dtype,
    )
    return ExportError(message, hint)


def check_learned(base: Any, trained: Any) -> Check:
    """That training changed the scores. Raises ExportError when it did not."""
    apart = _score_distance(base, trained)
    if not apart > SAME:
        raise ExportError(
            _("The trained model scores exactly as it did before: there is nothing to export."),
            _("Look at the run's loss; train longer or with a higher learning rate."),
        )
    return Check(
        _("Differs from its beginning"), True, _("scores {apart} apart", apart=_percent(apart))
    )


def check_scores(exported: Any, trained: Any, labels: Labels, precision: str) -> list[Check]:
    """That the exported model scores as the trained one and gives the same labels. Raises
    ExportError if not. `precision` names how the exported weights are held; scores are (rows,
    labels)."""
    scored = check_distance(exported, trained, precision)
    said, wanted = (given(probabilities(one, labels), labels) for one in (exported, trained))
    same = int((said == wanted).all(dim=1).sum())
    return [
        scored,
        Check(
            _("Gives the same labels"),
            same == len(said),
            _("to {same} of {total} texts", same=same, total=len(said)),
        ),
    ]


def check_distance(exported: Any, trained: Any, precision: str) -> Check:
    """That two models' scores differ by no more than the type of the weights rounds. Raises
    ExportError if they do."""
    apart, allowed = _score_distance(exported, trained), PRECISIONS[precision].allowed
    if not apart <= allowed:
        raise ExportError(
            _(
                "The exported model does not score as the trained one: its scores are {apart} "
                "off, where {dtype} allows {allowed}.",
                apart=_percent(apart),
                dtype=precision,
                allowed=_percent(allowed),
            ),
            _way_on(precision),
        )
    return Check(
        _("Scores as the trained model"),
        True,
        _(
            "scores {apart} apart, where {dtype} allows {allowed}",
            apart=_percent(apart),
            dtype=precision,
            allowed=_percent(allowed),
        ),
    )


def check_padding(alone: Any, together: Any, precision: str) -> Check:
    """That a text's scores are the same alone and among longer ones. Raises ExportError if not.
    Scores are (texts, labels)."""
    apart, allowed = _score_distance(alone, together), PRECISIONS[precision].allowed
    if not apart <= allowed:
        raise ExportError(
            _(
                "The exported model gives a text other scores among longer ones: they are {apart} "
                "off, where {dtype} allows {allowed}.",
                apart=_percent(apart),
                dtype=precision,
                allowed=_percent(allowed),
            ),
            _way_on(precision),
        )
    return Check(
        _("Takes texts of any number and length"),
        True,
        _("scores {apart} apart alone and together", apart=_percent(apart)),
    )


def check_tokens(mine: Sequence[list[int]], theirs: Sequence[list[int]]) -> Check:
    """That texts become the same tokens as in training. Raises ExportError."""
    same = sum(one == other for one, other in zip(mine, theirs, strict=True))
    if same < len(theirs):
        raise ExportError(
            _(
                "tokenizer.json alone makes other tokens of {wrong} of {total} texts than training "
                "did.",
                wrong=len(theirs) - same,
                total=len(theirs),
            ),
            _("Export it as a merged model."),
        )
    return Check(_("Reads texts as in training"), True, _("{count} of them", count=same))


def check_names(folder: Path, labels: Labels, *, merged: bool) -> Check:
    """That the labels stand beside the weights, and in the config of a whole model."""
    found = read_labels(folder)
    names = dict(enumerate(labels.names))
    config = names
    if merged:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = {int(number): name for number, name in written.get("id2label", {}).items()}
    if found.names != labels.names or config != names:
        raise ExportError(
            _("The export has lost its labels."), _("Export it again, or report this.")
        )
    return Check(_("Knows its labels"), True, _("{count} of them, by name", count=len(names)))


def check_same_scores(exported: Any, trained: Any, precision: str) -> list[Check]:
    """That the scores are the trained model's and put the answers in the same order. Raises
    ExportError if not. `precision` names how the exported weights are held; scores are (texts, 1),
    two texts of a pair after each other."""
    apart = check_distance(exported, trained, precision)
    pairs = [
        (scores[0::2] - scores[1::2])[: len(scores) // 2] > 0 for scores in (exported, trained)
    ]
    same = int((pairs[0] == pairs[1]).sum())
    total = len(pairs[0])
    return [
        apart,
        Check(
            _("Prefers the same answers"),
            same == total,
            _("in {same} of {total} pairs", same=same, total=total),
        ),
    ]


def check_one_score(folder: Path, *, merged: bool) -> Check:
    """That a whole model says in its config that it gives one score; for an adapter, that its head
    is saved with it. Raises ExportError."""
    if merged:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if len(config.get("id2label") or {}) != 1:
            raise ExportError(
                _("The export has lost its head."), _("Export it again, or report this.")
            )
        return Check(_("Gives one score"), True, _("its config says so"))
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    saved = settings.get("modules_to_save") or []
    if not saved:
        raise ExportError(
            _("The adapter has no head: the scores would be drawn at random."),
            _("Export it as a merged model, or report this."),
        )
    return Check(
        _("Gives one score"),
        True,
        _("its head is saved with it ({modules})", modules=", ".join(saved)),
    )


def check_perplexity(exported: float, trained: float, precision: str) -> Check:
    """That it is hardly less sure of held-out answers. Raises ExportError."""
    told = _(
        "{exported:.4g}, where the trained model has {trained:.4g} and {dtype} allows "
        "{allowed:.4g}",
        exported=exported,
        trained=trained,
        dtype=precision,
        allowed=trained * PRECISIONS[precision].times,
    )
    if not exported <= trained * PRECISIONS[precision].times:
        raise ExportError(
            _("The exported model has lost too much: its perplexity is {told}.", told=told),
            _way_on(precision),
        )
    return Check(_("Is as sure of held-out answers"), True, told)


def check_prompts(mine: Sequence[list[int]], theirs: Sequence[list[int]]) -> Check:
    """That conversations become the same tokens as in training. Raises ExportError."""
    wrong = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), None)
    if wrong is not None:
        at = next(
            (i for i, (a, b) in enumerate(zip(mine[wrong], theirs[wrong], strict=False)) if a != b),
            min(len(mine[wrong]), len(theirs[wrong])),
        )
        raise ExportError(
            _(
                "What opens the export makes other tokens of a conversation than training did, "
                "from token {at} on.",
                at=at + 1,
            ),
            _("Its chat template or tokenizer is not read alike: export it as a merged model."),
        )
    return Check(
        _("Reads conversations as in training"),
        True,
        _("{count} of them, {tokens} tokens", count=len(mine), tokens=sum(map(len, mine))),
    )


def check_ends(stopped: Sequence[bool]) -> Check:
    """That answers end where the trained model ends them. Raises ExportError if none does."""
    if not any(stopped):
        raise ExportError(
            _("The exported model does not stop at the end of its answer."),
            _("Its end-of-turn token is not known to what opens it: export it as a merged model."),
        )
    return Check(
        _("Stops at the end of its answer"),
        all(stopped),
        _("{same} of {total}", same=sum(stopped), total=len(stopped)),
    )


def _same_words(exported: Any, trained: Any, allowed: float) -> tuple[int, int]:
    """(places with the same most probable token, places where the trained model's is clear)."""
    squares = sum(float(_centred(one).pow(2).sum()) for (one,) in in_pieces(trained))
    lead = trained.topk(2, dim=-1).values.diff(dim=-1).abs().squeeze(-1)
    clear = lead > _CLEAR * allowed * math.sqrt(squares / trained.numel())
    same = exported.argmax(dim=-1) == trained.argmax(dim=-1)
    return int((same & clear).sum()), int(clear.sum())


def _score_distance(scores: Any, reference: Any) -> float:
    return float((scores - reference).pow(2).mean().sqrt() / reference.pow(2).mean().sqrt())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _centred(logits: Any) -> Any:
    return logits - logits.mean(dim=-1, keepdim=True)
