"""How many parameters a classifier's head has beside its base. Torch-free, from the base's files.

A base comes without a head for labels: transformers draws it at random, and each run trains all of
it. Its size is that of the family's `...ForSequenceClassification`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from core.config import RunConfig
from core.models.describe import ModelFacts, trainable_parameters

# Families whose head has a dense layer (width x width, with a bias) before that of the labels, and
# what that layer is called where a base may bring it along.
_DENSE = {
    "Bert": "pooler.dense",
    "Roberta": "classifier.dense",
    "XLMRoberta": "classifier.dense",
    "Camembert": "classifier.dense",
    "Electra": "classifier.dense",
    "MPNet": "classifier.dense",
    "DistilBert": "pre_classifier",
    "DebertaV2": "pooler.dense",
    "Deberta": "pooler.dense",
}
_WRITES = ("ForCausalLM", "LMHeadModel")
_READS = ("ForMaskedLM", "ForPreTraining", "Model")
# The layers for guessing tokens that a classifier leaves behind.
_GUESSES = ("lm_head.", "cls.", "decoder.", "vocab_", "generator_", "embed_out.", "mask_pred")


def head_parameters(facts: ModelFacts, labels: int) -> int | None:
    """The parameters that a classifier of so many labels has and its base has not.

    None when the family is not known here.
    """
    width, family = facts.hidden_size, facts.architecture
    if not width or not labels:
        return None
    if family.endswith(_WRITES):
        return width * labels  # a matrix alone, on the last token
    for end in _READS:
        name = family.removesuffix(end)
        if name != family and name == "ModernBert":
            # Its dense layer and norm before the labels come from guessing tokens.
            brought = any(shape for key, shape in facts.shapes.items() if "head.dense" in key)
            return labels * (width + 1) + (0 if brought else width * (width + 1))
        if name != family and name in _DENSE:
            brought = any(_DENSE[name] in key for key in facts.shapes)
            return labels * (width + 1) + (0 if brought else width * (width + 1))
    return None


def with_head(
    facts: ModelFacts, config: RunConfig, labels: int | None
) -> tuple[int | None, int | None]:
    """(parameters of the model, those that the run changes), with the head for so many labels
    where the method has one; None where the files do not tell. What is saved beside the model, an
    adapter and the head with it, counts among those that the run changes alone."""
    if not config.training_method.has_head or facts.parameters is None:
        return facts.parameters, trainable_parameters(facts, config)
    head = head_parameters(facts, 1 if config.training_method.makes == "scorer" else labels or 0)
    parameters = facts.parameters - left_behind(facts)
    kept = {name: s for name, s in facts.shapes.items() if not name.startswith(_GUESSES)}
    trained = trainable_parameters(replace(facts, parameters=parameters, shapes=kept), config)
    if head is None:
        return parameters, trained
    trained = None if trained is None else trained + head
    if config.adapter.is_adapter:
        return parameters, trained
    parameters += head
    return parameters, parameters if config.adapter.method == "none" else trained


def left_behind(facts: ModelFacts) -> int:
    """The parameters for guessing tokens, which a classifier has not."""
    return sum(
        math.prod(shape) for name, shape in facts.shapes.items() if name.startswith(_GUESSES)
    )
