"""The command line and the experiment to spoil, as the tests of the harness have them."""

from tests.harness.conftest import call, write

__all__ = ["call", "write"]
