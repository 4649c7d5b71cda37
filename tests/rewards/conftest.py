"""The stand-in for an endpoint, which a judge asks too."""

from tests.data.synthetic.conftest import endpoint, no_waiting

__all__ = ["endpoint", "no_waiting"]
