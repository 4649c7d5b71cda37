"""Tiny real tokenizers, and a workspace that may read the test's files."""

from tests.data.conftest import open_workspace, tokenizer_for

__all__ = ["open_workspace", "tokenizer_for"]
