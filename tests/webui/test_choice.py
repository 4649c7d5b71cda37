"""Lists whose choices change: what was clicked before is no error, and Gradio draws them so too."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

import webui.choice
from webui.choice import Dropdown, Radio

LISTS = [(Dropdown, gr.Dropdown), (Radio, gr.Radio)]


@pytest.mark.parametrize("ours, gradios", LISTS)
def test_a_choice_that_is_offered_no_more_reaches_its_handler(ours, gradios) -> None:
    """A person would be told of an error because two answers crossed."""
    ours, theirs = ours(["adapter"], render=False), gradios(["adapter"], render=False)
    assert ours.preprocess("merged") == "merged"
    # When this is no error any more, `webui.choice` can go.
    with pytest.raises(gr.Error, match="not in the list of choices"):
        theirs.preprocess("merged")


@pytest.mark.parametrize("ours, gradios", LISTS)
def test_the_page_is_told_the_same_of_it(ours, gradios) -> None:
    ours = ours(["a", "b"], value="a", label="L", render=False)
    theirs = gradios(["a", "b"], value="a", label="L", render=False)
    assert ours.get_block_name() == theirs.get_block_name()
    assert ours.get_config() == theirs.get_config()
    assert not list(Path(webui.choice.__file__).parent.glob("*.pyi"))
