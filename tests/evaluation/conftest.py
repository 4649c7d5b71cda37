"""The stand-in for an endpoint, which is compared with and judges."""

from tests.data.drafts.conftest import endpoint

__all__ = ["endpoint"]
