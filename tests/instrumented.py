"""A pytest plugin that loads the native module from the file in INSTRUMENTED_MODULE, before anybody imports it."""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "engines.apex._cpu"

_spec = importlib.util.spec_from_file_location(NAME, os.environ["INSTRUMENTED_MODULE"])
assert _spec is not None
assert _spec.loader is not None
sys.modules[NAME] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[NAME])
