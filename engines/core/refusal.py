"""Why a request can never run here, in numbers."""

from engines.core.kv import BlockPool
from engines.core.types import RequestSpec


def why_never(spec: RequestSpec, accel: BlockPool, max_model_tokens: int) -> str | None:
    if spec.prompt_tokens < 1 or spec.max_new_tokens < 1:
        return f"it asks for {spec.prompt_tokens} prompt and {spec.max_new_tokens} new tokens; both must be at least 1"
    total = spec.prompt_tokens + spec.max_new_tokens
    if total > max_model_tokens:
        return f"it needs {total} tokens, the model's context ends at {max_model_tokens}"
    if accel.blocks_for(total - 1) > accel.total:
        return (
            f"it needs KV for {total - 1} tokens ({accel.blocks_for(total - 1)} blocks of {accel.page_tokens}), "
            f"the accelerator holds {accel.total * accel.page_tokens} ({accel.total} blocks)"
        )
    return None
