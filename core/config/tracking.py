"""What a run writes down: its points, its checkpoints, and who else is told."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob

# How each tracker is called by people.
TITLES = {
    "tensorboard": "TensorBoard",
    "trackio": "trackio",
    "wandb": "Weights & Biases",
    "swanlab": "SwanLab",
    "mlflow": "MLflow",
}
_WITH_PROJECT: dict[str, list[Any]] = {
    "tracking.report_to": ["trackio", "wandb", "swanlab", "mlflow"]
}

_PUSHED: dict[str, list[Any]] = {"tracking.push_to_hub": [True]}


class TrackingSection(Section):
    """What is written down."""

    logging_steps: int = knob(1, "Log every", unit="steps", ge=1)
    """Each log is one point of the curves."""

    save_strategy: Literal["steps", "epoch", "no"] = knob("steps", "Save checkpoints")
    """A run can be resumed from its last checkpoint, and each can be tried in Chat."""

    save_steps: int = knob(
        20, "Save every", when={"tracking.save_strategy": ["steps"]}, unit="steps", ge=1
    )
    """Smaller loses less when something breaks, and writes more."""

    save_total_limit: int | None = knob(3, "Keep at most", unit="checkpoints", ge=1)
    """Older ones are deleted. Empty keeps them all."""

    report_to: list[Literal["tensorboard", "trackio", "wandb", "swanlab", "mlflow"]] = knob(
        [], "Trackers", group="Trackers"
    )
    """Also writes every curve there, into the run's folder. TensorBoard and trackio need no
    account; the others can stay on this machine too."""

    project: str = knob(
        "tunesmith",
        "Project in the trackers",
        group="Trackers",
        when=_WITH_PROJECT,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
    )
    """Runs of one project stand together there."""

    wandb_mode: Literal["online", "offline"] = knob(
        "offline",
        "Weights & Biases",
        group="Trackers",
        when={"tracking.report_to": ["wandb"]},
    )
    """Online sends settings and curves to their servers, with the key in WANDB_API_KEY. Offline
    keeps them in the run's folder; `wandb sync` sends them later."""

    swanlab_mode: Literal["online", "offline"] = knob(
        "offline", "SwanLab", group="Trackers", when={"tracking.report_to": ["swanlab"]}
    )
    """Online sends settings and curves to their servers, with the key in SWANLAB_API_KEY. Offline
    keeps them in the run's folder; `swanlab sync` sends them later."""

    mlflow_mode: Literal["local", "server"] = knob(
        "local", "MLflow", group="Trackers", when={"tracking.report_to": ["mlflow"]}
    )
    """Local keeps a store in the run's folder. Server is the one that MLFLOW_TRACKING_URI names."""

    push_to_hub: bool = knob(False, "Push to the Hub while training", group="Hugging Face Hub")
    """Each model that is saved goes to one repository on the Hub, with a card. It is sent beside
    the training: what cannot be sent is told, and sent with the next save. Log in first (the Export
    tab, or `hub login`)."""

    hub_model_id: str = knob(
        "",
        "Repository",
        group="Hugging Face Hub",
        when=_PUSHED,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?$",
    )
    """OWNER/NAME on the Hub. It is made if it is not there."""

    hub_strategy: Literal["every_save", "end"] = knob(
        "every_save", "Push", group="Hugging Face Hub", when=_PUSHED
    )
    """Every save sends each checkpoint's model in place of the one before. The end sends the
    finished model alone."""

    hub_private_repo: bool = knob(True, "Private", group="Hugging Face Hub", when=_PUSHED)
    """A repository that is made is seen by its owner alone. What was public once cannot be taken
    back."""
