"""Which curves say how a run of a method goes, in plain words.

`panels(method, metrics)` picks from the table what a run has measured so far, so that a chart is
there as soon as it has something to show and never without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from core.language import N_, Said
from core.methods import METHODS

Style = Literal["line", "dots", "dashed"]
GIB = 2.0**30
# More lines than this in one chart cannot be told apart.
MOST_LINES = 8
# The numbers of each label, which evaluations of a classifier tell beside their means.
LABEL_F1 = "f1/"


@dataclass(frozen=True)
class Curve:
    """One line: the metric's name in the events, its name on the page, what it is divided by."""

    metric: str
    name: Said = Said("")
    style: Style = "line"
    divisor: float = 1.0


@dataclass(frozen=True)
class Panel:
    """One chart with its title and a sentence on how to read it."""

    key: str
    title: Said = Said()
    sentence: Said = Said()
    curves: tuple[Curve, ...] = ()

    def of(self, metrics: Mapping[str, float]) -> Panel | None:
        """This panel with the curves that were measured; None when none was."""
        found = [one for curve in self.curves for one in _measured(curve, metrics)]
        return Panel(self.key, self.title, self.sentence, tuple(found)) if found else None

    def colours(self) -> list[int]:
        """For each curve the number of its colour: the held-out rows share that of the training
        where several things are drawn."""
        stems = [curve.metric.removeprefix("eval_") for curve in self.curves]
        known = list(dict.fromkeys(stems))
        if len(known) == 1:
            return list(range(len(stems)))
        return [known.index(stem) for stem in stems]


def _measured(curve: Curve, metrics: Mapping[str, float]) -> Iterable[Curve]:
    """The curve if it was measured; one with a `*` for each metric that fits, of too many those
    that stand lowest."""
    before, star, after = curve.metric.partition("*")
    if not star:
        return [curve] if curve.metric in metrics else []
    names = [
        name
        for name in metrics
        if name.startswith(before) and name.endswith(after) and len(name) > len(before + after)
    ]
    lowest = sorted(names, key=lambda name: (metrics[name], name))[:MOST_LINES]
    return [
        Curve(name, name[len(before) : len(name) - len(after)], curve.style, curve.divisor)
        for name in sorted(lowest)
    ]


def _pair(metric: str) -> tuple[Curve, Curve]:
    """A metric of the training batches and of the held-out rows."""
    return Curve(metric, N_("Training")), Curve(f"eval_{metric}", N_("Held out"), "dots")


def _both_sides(metric: str) -> tuple[Curve, ...]:
    """A metric of the better and of the worse answers."""
    return (
        Curve(f"{metric}/chosen", N_("Better")),
        Curve(f"{metric}/rejected", N_("Worse")),
        Curve(f"eval_{metric}/chosen", N_("Better, held out"), "dots"),
        Curve(f"eval_{metric}/rejected", N_("Worse, held out"), "dots"),
    )


# Charts of single methods, by the names under which core.methods lists them.
_TABLE = {
    "perplexity": Panel(
        "perplexity",
        N_("Perplexity"),
        N_("Between how many tokens the model wavers at each place; 1 is certain."),
        _pair("perplexity"),
    ),
    "tokens_right": Panel(
        "token_accuracy",
        N_("Tokens guessed right"),
        N_("Share of tokens that the model would have written itself."),
        _pair("mean_token_accuracy"),
    ),
    "labels_right": Panel(
        "scores",
        N_("Labels right"),
        N_("On the held-out rows. Macro F1 counts each label alike, however rare it is."),
        (
            Curve("eval_accuracy", N_("Accuracy"), "dots"),
            Curve("eval_f1_macro", N_("F1, macro"), "dots"),
            Curve("eval_f1_weighted", N_("F1, weighted"), "dots"),
        ),
    ),
    "labels": Panel(
        "labels",
        N_("F1 of each label"),
        N_("On the held-out rows; of many labels those that stand lowest."),
        (Curve(f"{LABEL_F1}*", style="dots"),),
    ),
    "pairs_right": Panel(
        "accuracies",
        N_("Pairs ordered right"),
        N_("Share of pairs whose better answer gets the higher reward; 0.5 is chance."),
        _pair("rewards/accuracies"),
    ),
    "margins": Panel(
        "margins",
        N_("Margin"),
        N_("By how much the better answer's reward is higher. It should rise."),
        _pair("rewards/margins"),
    ),
    "rewards": Panel(
        "rewards",
        N_("Rewards of both answers"),
        N_("How much likelier than at the start each answer has become. They should part."),
        _both_sides("rewards"),
    ),
    "logps": Panel(
        "logps",
        N_("Log probability of both answers"),
        N_("If the better answer's falls too, the model unlearns both: lower the learning rate."),
        _both_sides("logps"),
    ),
    "learned": Panel(
        "nll",
        N_("Loss of the better answer"),
        N_("How well the better answer itself is learned, beside the preference."),
        _pair("nll_loss"),
    ),
    "pairs_scored_right": Panel(
        "accuracy",
        N_("Pairs ordered right"),
        N_("Share of pairs whose better answer scores higher; 0.5 is chance."),
        _pair("accuracy"),
    ),
    "score_margin": Panel(
        "margin",
        N_("Margin"),
        N_("By how much the better answer scores higher. It should rise."),
        _pair("margin"),
    ),
    "scores": Panel(
        "scores",
        N_("Scores"),
        N_("The scores that answers get. Only their differences mean something."),
        (
            Curve("mean_reward", N_("Mean")),
            Curve("min_reward", N_("Lowest"), "dashed"),
            Curve("max_reward", N_("Highest"), "dashed"),
        ),
    ),
    "reward": Panel(
        "reward",
        N_("Mean reward"),
        N_("What the answers of each step got, all functions together. It should rise."),
        _pair("reward"),
    ),
    "functions": Panel(
        "functions",
        N_("Reward of each function"),
        N_("Which of them the model has learned to please."),
        (Curve("rewards/*/mean"),),
    ),
    "spread": Panel(
        "spread",
        N_("Spread of the rewards"),
        N_("Answers to the same prompt have to differ in reward, or nothing can be learned."),
        (
            Curve("reward_std", N_("Spread")),
            Curve("frac_reward_zero_std", N_("Share of prompts without any"), "dashed"),
        ),
    ),
    "distance": Panel(
        "kl",
        N_("Distance from the reference (KL)"),
        N_("How far the model has moved. A steep rise means that it drifts off."),
        (Curve("kl", "KL"),),
    ),
    "distance_pair": Panel(
        "kl",
        N_("Distance from the reference (KL)"),
        N_("How far the model has moved. A steep rise means that it drifts off."),
        _pair("kl"),
    ),
    "answer_length": Panel(
        "length",
        N_("Length of the answers"),
        N_(
            "Tokens of the answers written. A sudden rise or fall often goes with a trick on "
            "the reward."
        ),
        (
            Curve("completions/mean_length", N_("Mean")),
            Curve("completions/max_length", N_("Longest"), "dashed"),
        ),
    ),
    "cut_off": Panel(
        "clip",
        N_("Cut off"),
        N_("Share of answers that reached the length limit, and of updates that were clipped."),
        (
            Curve("completions/clipped_ratio", N_("Answers at the limit")),
            Curve("clip_ratio/region_mean", N_("Updates clipped")),
            Curve("clip_ratio/high_mean", N_("Clipped above"), "dashed"),
            Curve("clip_ratio/low_mean", N_("Clipped below"), "dashed"),
        ),
    ),
    "entropy": Panel(
        "entropy",
        N_("Entropy"),
        N_("How undecided the model is between tokens. Near 0 it says the same thing each time."),
        _pair("entropy"),
    ),
}
_OF_ALL = (
    Panel(
        "learning_rate",
        N_("Learning rate"),
        N_("The size of the steps, as the schedule has it."),
        (Curve("learning_rate", N_("Learning rate")),),
    ),
    Panel(
        "grad_norm",
        N_("Gradient norm"),
        N_("How strongly each batch pulls. Single spikes are usual; a steady rise is not."),
        (Curve("grad_norm", N_("Gradient norm")),),
    ),
    Panel(
        "speed",
        N_("Tokens per second"),
        N_("Real tokens, padding left out."),
        (Curve("tokens_per_second", N_("Tokens/s")),),
    ),
    Panel(
        "rows_speed",
        N_("Rows per second"),
        N_("Rows of the data set, whatever their length."),
        (Curve("samples_per_second", N_("Rows/s")),),
    ),
    Panel(
        "memory",
        N_("Memory (GiB)"),
        N_("The peak on the GPU, or what the process holds on the CPU."),
        (
            Curve("gpu_memory_bytes", "GPU", divisor=GIB),
            Curve("memory_bytes", N_("Process"), divisor=GIB),
        ),
    ),
    Panel(
        "device",
        N_("Device in use (%)"),
        N_("Far below 100 the device waits, mostly for rows or for the disk."),
        (Curve("gpu_percent", "GPU"), Curve("cpu_percent", N_("CPU, all cores"))),
    ),
)
# Drawn large, above the others.
LOSS = Panel(
    "loss", N_("Loss"), "", (Curve("loss", N_("Loss")), Curve("eval_loss", N_("Eval loss"), "dots"))
)


def panels(method: str, metrics: Mapping[str, float], *, everything: bool = False) -> list[Panel]:
    """The charts of a run: those of its method, then those of every run, each with the curves that
    were measured. `metrics` has the last value of each; with `everything` each further one gets a
    chart too."""
    own = [_TABLE[name] for name in METHODS[method].panels] if method in METHODS else []
    found = [panel.of(metrics) for panel in (*own, *_OF_ALL)]
    shown = [panel for panel in found if panel]
    if not everything:
        return shown
    drawn = {curve.metric for panel in (*shown, LOSS) for curve in panel.curves}
    rest = {name: value for name, value in metrics.items() if name not in drawn}
    stems = sorted({name.removeprefix("eval_") for name in rest})
    further = [Panel(stem, stem, "", _pair(stem)).of(rest) for stem in stems]
    return shown + [panel for panel in further if panel]
