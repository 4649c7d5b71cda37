"""Gives labels to texts. Needs: pip install onnxruntime tokenizers numpy

    python predict.py "A text." "Another one."
    python predict.py --model model-int8.onnx < texts.txt

Texts are the arguments, or else the lines of standard input. Prints one line of JSON for each: its
label (or, where a text may have several, its labels) and the probability of every label.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
MODELS = [name for name in ("model.onnx", "model-int8.onnx") if (FOLDER / name).is_file()]
TEXTS_AT_ONCE = 16


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def softmax(logits):
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


class Classifier:
    def __init__(self, model):
        self.deployment = read("deployment_config.json")
        ids = read("label_mapping.json")["label2id"]
        self.labels = sorted(ids, key=ids.get)
        self.tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.deployment["max_length"])
        self.tokenizer.enable_padding(pad_id=read("config.json")["pad_token_id"])
        self.session = onnxruntime.InferenceSession(
            str(FOLDER / model),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # slower than what it joins
        )
        self.inputs = [given.name for given in self.session.get_inputs()]

    def predict(self, texts):
        """For each text its label or labels, and the probabilities of all."""
        encoded = self.tokenizer.encode_batch(texts)
        known = {
            "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], dtype=np.int64),
        }
        logits = self.session.run(["logits"], {name: known[name] for name in self.inputs})[0]
        return [self.told(text, row) for text, row in zip(texts, logits, strict=True)]

    def told(self, text, logits):
        thresholds = self.deployment.get("thresholds")
        if thresholds:
            chances = dict(zip(self.labels, sigmoid(logits).tolist(), strict=True))
            given = [name for name in self.labels if chances[name] >= thresholds[name]]
            return {"text": text, "labels": given, "scores": chances}
        chances = dict(zip(self.labels, softmax(logits).tolist(), strict=True))
        return {"text": text, "label": max(chances, key=chances.get), "scores": chances}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="*", help="texts; else the lines of standard input")
    parser.add_argument("--model", default=MODELS[0], choices=MODELS)
    given = parser.parse_args()
    classifier = Classifier(given.model)
    texts = iter(given.texts or (line.rstrip("\n") for line in sys.stdin))
    while some := list(islice(texts, TEXTS_AT_ONCE)):
        for one in classifier.predict(some):
            print(json.dumps(one, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
