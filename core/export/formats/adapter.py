"""Only what was learned: an adapter of PEFT, to be loaded onto its base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.config.adapter import NAMES
from core.export.format import Base, Exporting, Format, Part, auto_class, scorer_code
from core.export.package import folder_bytes
from core.language import N_, _
from core.methods import Makes
from core.models.modelscope import PREFIX, fetching_code
from core.models.trained import TrainedModel, adapter_settings

_FOLDER = '"path/to/this/folder"'
_HEAD_CODE = """import json

from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = json.load(open(f"{folder}/label_mapping.json", encoding="utf-8"))["label2id"]
base = AutoModelForSequenceClassification.from_pretrained(
    "BASE",
    label2id=ids,
    id2label={number: label for label, number in ids.items()},
    pad_token_id=tokenizer.pad_token_id,
)
model = PeftModel.from_pretrained(base, folder)"""

_SERVED = """

Served by vLLM beside its base, for requests to the model `tuned`:

```sh
vllm serve {name} --enable-lora --max-lora-rank 64 --lora-modules tuned=path/to/this/folder
```

`--max-lora-rank` must be at least `r` in adapter_config.json."""


class Adapter(Format):
    name = "adapter"
    title = N_("Adapter")
    meaning = N_("Only what was learned: a few megabytes, to be loaded onto the base with PEFT.")
    place = 1
    is_whole = False
    library = "peft"
    relation = "adapter"

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        if config.adapter.is_adapter:
            return None
        why = _("This run trained the weights of its model: there is no adapter.")
        return why, _("Export it as a merged model.")

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        return folder_bytes(trained.folder)

    def write(self, work: Exporting, model: Any) -> None:
        work.tell(0.4, _("Copying the adapter"))
        for path in work.trained.folder.glob("adapter_model*.safetensors"):
            shutil.copyfile(path, work.folder / path.name)
        if work.trained.new_tokens is not None:
            work.trained.new_tokens.save(work.folder)
        settings = adapter_settings(work.trained.folder)
        settings |= {"base_model_name_or_path": work.base.name, "inference_mode": True}
        if not work.base.is_public:
            settings["revision"] = None
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (work.folder / "adapter_config.json").write_text(text, encoding="utf-8")
        work.add_tokenizer(work.folder)

    def load(self, work: Exporting, part: Part) -> Any:
        return work.on_base(work.folder)

    def tags(self, config: RunConfig) -> list[str]:
        return [config.adapter.method.replace("_", "-")]

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"An adapter ({NAMES[config.adapter.method]}) for {of}, trained on {data}. It "
            "holds only what was learned and needs its base to run."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        name = base.path
        if makes == "classifier":
            code = _HEAD_CODE.replace("BASE", name)
        elif makes == "scorer":
            code = scorer_code(
                f'AutoModelForSequenceClassification.from_pretrained("{name}", num_labels=1)',
                f"\nmodel = PeftModel.from_pretrained(model, {_FOLDER})",
                "from peft import PeftModel\n",
            )
        else:
            kind = auto_class(makes)
            code = (
                "from peft import PeftModel\n"
                f"from transformers import {kind}, AutoTokenizer\n\n"
                f'base = {kind}.from_pretrained("{name}", dtype="auto")\n'
                f"model = PeftModel.from_pretrained(base, {_FOLDER})\n"
                f"tokenizer = AutoTokenizer.from_pretrained({_FOLDER})"
            )
        served = _SERVED.format(name=name) if makes == "writer" else ""
        return f"{_on_its_base(base)}```python\n{code}\n```{served}"

    def needs(self, trained: TrainedModel) -> list[str]:
        tokens = trained.new_tokens
        if tokens is None:
            return []
        return [
            f"It brings {len(tokens.ids)} new tokens with it. Give the base as many rows of "
            "embeddings before you load the adapter: "
            f"`base.resize_token_embeddings({tokens.rows})`, if it has fewer."
        ]


def _on_its_base(base: Base) -> str:
    """What must be known of the base, where it is not simply one of the Hub."""
    if base.is_copy:
        return (
            f"It was trained on a copy of {base.name} whose weights had been quantized to 4 bits "
            "and back. On the original weights it answers nearly, but not exactly, as it did "
            "here; the merged model answers exactly so.\n\n"
        )
    if base.is_public:
        return ""
    if base.made_of:
        return (
            f"**The adapter is of no use alone, and not on {base.made_of} either.** Its base "
            f"is what run `{base.name}` made of {base.made_of}: export that run as a merged "
            "model and put its path in place. The merged export of this run needs nothing "
            "else.\n\n"
        )
    if base.is_of_modelscope:
        return (
            f"The base is `{base.name.removeprefix(PREFIX)}` on ModelScope. Its package "
            "modelscope-hub fetches it; put the folder that it gives in its place:\n\n"
            "```python\nfrom modelscope_hub import HubApi\n\n"
            f"print({fetching_code(base.name)})\n```\n\n"
        )
    return (
        f"The base was a folder called `{base.name}` on the machine that trained; put "
        "the path of yours in its place.\n\n"
    )


FORMAT = Adapter()
