"""Engines run inside the test process here; it is left as it was found."""

from tests.engine_process import machine_as_found

__all__ = ["machine_as_found"]
