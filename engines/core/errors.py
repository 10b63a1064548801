"""What can go wrong in the control plane. Conditions a scheduler meets every day are return values, not these."""


class CoreError(Exception):
    """Base of everything raised by `engines.core`."""


class PolicyError(CoreError):
    """A policy decided something that the budgets, the blocks or the queues do not allow: a bug in the policy."""


class IntegrityError(CoreError):
    """Blocks, tokens or queues do not add up: a bug in the core."""


class UnsupportedPlanError(CoreError):
    """No lowering exists for this combination of mode and placement. Combinations that nobody tests are refused."""
