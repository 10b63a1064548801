"""The one exception of this package: a run folder, or a record in it, that cannot be used as it is.

Its message is a single line that names the file and what to change, so that a command line can print it as it stands.
"""

from __future__ import annotations


class ResultsError(ValueError):
    """A run folder or a record that is missing, malformed or from another version."""
