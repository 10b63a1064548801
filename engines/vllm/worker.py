"""The real vLLM, run by engines/process/host.py inside vLLM's own environment: its engine API, one step at a time.

The process is vLLM's own, so the engine core stays in it (no second hop between two Pythons), and nothing is
detokenised. What the scheduler did is read from outside, around its `schedule`; a vLLM whose scheduler looks different
serves all the same and only tells less.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CPU_PAGE_TOKENS = 32

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def open_engine(settings: dict[str, Any]) -> Vllm:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    return Vllm(LLMEngine.from_engine_args(EngineArgs(**engine_args(settings))), settings)


def engine_args(settings: dict[str, Any]) -> dict[str, Any]:
    """The envelope in vLLM's words. Block 0 is vLLM's own placeholder, so it gets one more to have as many to use."""
    page_tokens = page_tokens_of(settings)
    blocks = settings["accel_kv_tokens"] // page_tokens + 1
    return {
        "model": settings["model"],
        "skip_tokenizer_init": True,
        "dtype": settings["dtype"],
        "block_size": page_tokens,
        "num_gpu_blocks_override": blocks,
        "kv_cache_memory_bytes": blocks * page_tokens * settings["kv_bytes_per_token"],
        "max_num_seqs": settings["max_batch"],
        "max_num_batched_tokens": settings["max_batch_tokens"],
        "max_model_len": settings["longest_request_tokens"],
        "enable_prefix_caching": settings["prefix_caching"],
        "enforce_eager": settings["eager"],
        "disable_log_stats": True,
        "seed": 0,
        **settings["engine_args"],
    }


def page_tokens_of(settings: dict[str, Any]) -> int:
    """vLLM's CPU attention works on multiples of 32 only; as many tokens in larger pages are no more memory."""
    asked: int = settings["accel_page_tokens"]
    return asked if settings["backend"] != "cpu" or asked % CPU_PAGE_TOKENS == 0 else CPU_PAGE_TOKENS


class Vllm:
    def __init__(self, engine: Any, settings: dict[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._engine = engine
        self._sampling: Callable[..., Any] = lambda new_tokens, stop_ids: SamplingParams(
            temperature=0.0,
            max_tokens=new_tokens,
            ignore_eos=True,  # not min_tokens: that would forbid the token instead of going on after it
            stop_token_ids=stop_ids,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._ours: dict[str, int] = {}  # vLLM's request id -> ours
        self._watch = watched(engine)
        self.resolved = resolved(engine, settings, self._watch)

    @property
    def busy(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def submit(self, request_id: int, token_ids: list[int], max_new_tokens: int, stop_ids: list[int]) -> None:
        sampling = self._sampling(max_new_tokens, stop_ids)
        name = self._engine.add_request(str(request_id), {"prompt_token_ids": token_ids}, sampling)
        self._ours[str(request_id)] = self._ours[name or str(request_id)] = request_id

    def step(self) -> dict[str, Any]:
        begun_s = time.perf_counter()
        outputs = self._engine.step()
        ended_s = time.perf_counter()
        step: dict[str, Any] = {"ids": [], "tokens": [], "finished": [], "begun_s": begun_s, "ended_s": ended_s}
        for output in outputs:
            request_id = self._ours[output.request_id]
            token_ids = output.outputs[0].token_ids
            step["ids"] += [request_id] * len(token_ids)
            step["tokens"] += token_ids
            if output.finished:
                step["finished"].append(request_id)
        if self._watch is not None:
            admitted, preempted, step["facts"] = self._watch.taken()
            step["admitted"] = [self._ours[name] for name in admitted]
            step["preempted"] = [self._ours[name] for name in preempted]
        return step

    def close(self) -> None:
        self._engine.engine_core.shutdown()


def watched(engine: Any) -> _Watch | None:
    """None where this vLLM cannot be looked into."""
    try:
        return _Watch(engine)
    except AttributeError:
        return None


class _Watch:
    """Around `schedule` and `execute_model`: who was admitted or preempted, the batch, and where the time went."""

    def __init__(self, engine: Any) -> None:
        core = engine.engine_core.engine_core
        self._scheduler = core.scheduler
        self._pool = core.scheduler.kv_cache_manager.block_pool
        self._admitted: Sequence[str] = ()
        self._preempted: Sequence[str] = ()
        self._facts: dict[str, Any] = {}
        self._scheduler_s = self._model_s = 0.0
        self._schedule = core.scheduler.schedule
        core.scheduler.schedule = self._scheduled
        for name in ("execute_model", "sample_tokens"):
            call = getattr(core.model_executor, name, None)
            if call is not None:
                setattr(core.model_executor, name, self._timed(call))

    def taken(self) -> tuple[Sequence[str], Sequence[str], dict[str, Any]]:
        """Of the step that has ended; queues and blocks as it left them."""
        facts = self._facts | {
            "running": len(self._scheduler.running),
            "waiting": len(self._scheduler.waiting),
            "accel_blocks_used": self._pool.num_gpu_blocks - 1 - self._pool.get_num_free_blocks(),
            "scheduler_s": self._scheduler_s,
            "accel_s": self._model_s,
        }
        found = (self._admitted, self._preempted, facts)
        self._admitted, self._preempted = (), ()
        self._scheduler_s = self._model_s = 0.0
        return found

    def _scheduled(self, *args: Any, **kwargs: Any) -> Any:
        before = [request.request_id for request in self._scheduler.running]
        begin_s = time.perf_counter()
        output = self._schedule(*args, **kwargs)
        self._scheduler_s += time.perf_counter() - begin_s
        running = {request.request_id: request for request in self._scheduler.running}
        self._preempted = [name for name in before if name not in running]
        self._admitted = [new.req_id for new in output.scheduled_new_reqs]
        rows = output.num_scheduled_tokens
        decodes = sum(count == 1 and running[name].num_output_tokens > 0 for name, count in rows.items())
        self._facts = {
            "decode_rows": decodes,
            "prefill_rows": len(rows) - decodes,
            "prefill_tokens": output.total_num_scheduled_tokens - decodes,
            "preempted": len(self._preempted),
        }
        return output

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self._model_s += time.perf_counter() - begin_s

        return timed


def resolved(engine: Any, settings: dict[str, Any], watch: _Watch | None) -> dict[str, Any]:
    """What vLLM made of the envelope, in the words of the fairness table."""
    import torch
    import vllm

    config = engine.vllm_config
    blocks, page_tokens = config.cache_config.num_gpu_blocks - 1, config.cache_config.block_size
    found = {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "accel_kv_blocks": blocks,
        "accel_page_tokens": page_tokens,
        "accel_kv_tokens": blocks * page_tokens,
        "accel_kv_bytes": blocks * page_tokens * settings["kv_bytes_per_token"],
        "weight_bytes": sum(path.stat().st_size for path in Path(settings["model"]).glob("*.safetensors")),
        "host_kv_tokens": 0,
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "max_batch": config.scheduler_config.max_num_seqs,
        "max_batch_tokens": config.scheduler_config.max_num_batched_tokens,
        "cpu_threads": 0,
        "accel_cores": torch.get_num_threads() if settings["backend"] == "cpu" else 0,
        "device": config.device_config.device_type,
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "compiled": not config.model_config.enforce_eager,
        "preloaded": os.environ.get("LD_PRELOAD", "nothing"),
        "steps": "told by vLLM's scheduler" if watch else "not told: this vLLM's scheduler cannot be looked into",
    }
    return found | _of_the_runner(engine)


def _of_the_runner(engine: Any) -> dict[str, Any]:
    """Deeper inside, and so the first to move from one version to the next."""
    found: dict[str, Any] = {}
    try:
        runner = engine.model_executor.driver_worker.worker.model_runner
        found["attention"] = runner.attn_groups[0][0].backend.get_name()
        isa = getattr(runner.attn_groups[0][0].get_metadata_builder(), "isa", None)
        found["attention"] += f" ({isa})" if isa else ""
    except (AttributeError, IndexError, TypeError):
        pass
    return found
