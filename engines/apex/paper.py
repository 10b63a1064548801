"""The selector `paper`: equation 6, and what follows from the same argument where prompts are in the batch.

Secondary: the body of the paper is not public to us; the inequality and the names of the modes come from notes about
it.
"""

from engines.apex.situation import Situation
from engines.core.cost import Predictor, Work
from engines.core.types import Mode


def chosen_by_the_paper(situation: Situation) -> Mode:
    work, host = situation.work, len(situation.host)
    if not host:
        return Mode.ASYNC_OVERLAP if situation.view.cohorts else Mode.GPU_ONLY
    if not work.decode_rows:
        return Mode.ASYMMETRIC
    accel_s = situation.accel_s
    ratio = gpu_over_cpu(work.decode_rows, accel_s, host, situation.host_s(host))
    if work.prefill_tokens:
        bound = mixed_bound(situation.predict, work)
    else:
        bound = decode_bound(accel_s / situation.linear_s(0))
    return Mode.ASYMMETRIC if ratio < bound else Mode.ASYNC_OVERLAP


def gpu_over_cpu(accel_rows: int, accel_s: float, host_rows: int, host_s: float) -> float:
    """N_G / N_C: attended requests per second on either side."""
    return (accel_rows / accel_s) / (host_rows / host_s)


def decode_bound(r: float) -> float:
    """Asymmetric pipelining wins below it: 2 / r + 3 + r, r = T_gatt / T_lin [equation 6 of the paper, secondary]."""
    return 2.0 / r + 3.0 + r


def mixed_bound(predict: Predictor, work: Work) -> float:
    """The same with prompts in the first half [derived]: T_ov (T_ov - T_lin) / (T_gatt T_lin)."""
    decodes = Work(tokens=work.decode_rows, decode_rows=work.decode_rows, decode_kv_tokens=work.decode_kv_tokens)
    linear_s, accel_s = predict.linear_s(work.decode_rows), predict.accel_attention_s(decodes)
    prompts_s = predict.accel_attention_s(work) - accel_s
    whole_s = predict.linear_s(predict.gemm_rows(work)) + prompts_s + accel_s + linear_s
    return whole_s * (whole_s - linear_s) / (accel_s * linear_s)
