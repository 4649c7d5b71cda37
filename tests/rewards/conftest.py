"""The stand-in for an endpoint, which a judge asks too."""

from tests.data.drafts.conftest import endpoint

__all__ = ["endpoint"]
