"""The one mistake that only a running server can show: it cannot be used as the options say."""


class EndpointError(ValueError):
    """One line: what the endpoint said or lacks, and what to change."""
