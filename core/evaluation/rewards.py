"""What a run that learned from preferences measured of its held-out pairs while it was trained."""

from __future__ import annotations

from core.jobs.events import Event, read_events
from core.models.trained import FINAL, TrainedModel

_ACCURACY = "eval_rewards/accuracies"


def reward_note(trained: TrainedModel) -> str | None:
    """A sentence on how often the better answer got the higher reward, by the run's own evaluation
    at this checkpoint (the last one for the final model); None where it made none."""
    found: Event | None = None
    for event in read_events(trained.run.events):
        if event["kind"] != "metrics" or _ACCURACY not in event:
            continue
        if trained.checkpoint in (FINAL, f"checkpoint-{event.get('step')}"):
            found = event
    if found is None:
        return None
    margin = found.get("eval_rewards/margins")
    more = "" if margin is None else f", by {margin:.3g} on average"
    return (
        f"In training, at step {found['step']}, the better of two held-out answers had the higher "
        f"reward in {found[_ACCURACY]:.1%} of cases{more}."
    )
