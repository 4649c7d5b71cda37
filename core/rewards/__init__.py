"""Reward functions for reinforcement: what they are, what they say of an answer, how one is tried.

`kinds` declares them, `specs` reads them out of a config, `functions` judges texts, `build` makes
what a trainer calls. `core.worker.rewards` opens reward models for it.
"""
