"""Fixtures of the tests of runs."""

from __future__ import annotations

from tests.jobs.conftest import bench

__all__ = ["bench"]
