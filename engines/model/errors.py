"""The one error of this package: a model, a folder or a setting that cannot be used, said in one line."""


class ModelError(ValueError):
    """The user asked for a model that we cannot read or run; the message says what to change."""
