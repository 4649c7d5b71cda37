"""Of several answers to the same part of the page, only the one that was asked for last counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Newest:
    """The value of a `gr.State`, which each browser's session has a copy of.

    Gradio answers two choices at the same time, and the answer to the first may come last: the page
    would show what is no longer chosen. A handler asks when it begins and is silent when another
    has asked since.
    """

    asked: object = None

    def ask(self) -> object:
        """A token of its own for the handler that begins."""
        mine = self.asked = object()
        return mine

    def is_newest(self, mine: object) -> bool:
        return self.asked is mine
