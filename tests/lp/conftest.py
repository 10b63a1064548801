"""The command line, as the tests of the harness call it."""

from tests.harness.conftest import call

__all__ = ["call"]
