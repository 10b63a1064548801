"""Trace readers: each format, detected or given, and what a bad line says."""

import tracemalloc
from pathlib import Path

import pytest

from workloads import Workload, WorkloadError, build, realised
from workloads.traces import FORMATS, MAX_LINE_BYTES, TraceLine, TraceReader

GOOD = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:48.1805900,396,109",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,374,44,418,Conversation log\n6.5,GPT-4,396,109,505,API log\n",
    "mooncake": '{"timestamp": 5000, "input_length": 374, "output_length": 44, "hash_ids": [0, 1]}\n'
    '{"timestamp": 6500, "input_length": 396, "output_length": 109, "hash_ids": [0, 2]}\n',
    "jsonl": '{"arrival_s": 5, "prompt_tokens": 374, "output_tokens": 44}\n\n'
    '{"arrival_s": 6.5, "prompt_tokens": 396, "output_tokens": 109, "user": "x"}\n',
}
HEADERS = {"azure": GOOD["azure"].split("\r\n")[0], "burstgpt": GOOD["burstgpt"].split("\n")[0]}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "some.trace"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def replayed(path: Path, **options: object) -> Workload:
    return build({"kind": "trace", "path": str(path), **options}, 0)


@pytest.mark.parametrize("given", ["auto", "the format"])
@pytest.mark.parametrize("format", FORMATS)
def test_each_format_detected_and_given(tmp_path: Path, format: str, given: str) -> None:
    workload = replayed(written(tmp_path, GOOD[format]), format="auto" if given == "auto" else format)
    found = [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in workload.requests]
    assert found == [(0.0, 374, 44), (1.5, 396, 109)]
    assert workload.name == "trace-some"
    assert f"({format} format)" in workload.sources[0]
    assert workload.arrivals == "trace times"


def test_byte_order_mark_and_quoted_cells(tmp_path: Path) -> None:
    text = HEADERS["burstgpt"] + '\n5,"a, b",1,2,3,log\n'
    assert list(TraceReader(written(tmp_path, "\ufeff" + text))) == [TraceLine(5.0, 1, 2)]


def test_failed_requests_are_left_out_and_counted(tmp_path: Path) -> None:
    text = GOOD["burstgpt"] + "7,GPT-4,100,0,100,API log\n8,GPT-4,100,3,103,API log\n"
    workload = replayed(written(tmp_path, text))
    assert len(workload.requests) == 3
    assert workload.sources[1] == "1 failed requests of the trace left out"


def test_lines_out_of_order_are_sorted_and_reported(tmp_path: Path) -> None:
    lines = [f'{{"arrival_s": {at}, "prompt_tokens": {at + 1}, "output_tokens": 1}}' for at in (3, 1, 2)]
    workload = replayed(written(tmp_path, "\n".join(lines)))
    assert [(r.arrival_s, r.prompt_tokens) for r in workload.requests] == [(0, 2), (1, 3), (2, 4)]
    assert "3 lines" in workload.sources[1]


BAD_LINES = [
    ("azure", HEADERS["azure"] + "\n2023-11-16 18:15:46,374\n", 2, "only 2 columns"),
    ("azure", HEADERS["azure"] + "\nyesterday,374,44\n", 2, "yesterday"),
    ("azure", HEADERS["azure"] + "\n2023-11-16 18:15:46,3x4,44\n", 2, "whole number"),
    ("azure", HEADERS["azure"] + "\n2023-11-16 18:15:46,-3,44\n", 2, "whole number"),
    ("azure", HEADERS["azure"] + "\n2023-11-16 18:15:46,374,0\n", 2, "not in 1"),
    ("azure", GOOD["azure"] + "\n2023-11-16 18:15:46+00:00,1,2\n", 4, "offset"),
    ("burstgpt", HEADERS["burstgpt"] + "\nnan,ChatGPT,1,2,3,log\n", 2, "not finite"),
    ("burstgpt", HEADERS["burstgpt"] + "\n-1,ChatGPT,1,2,3,log\n", 2, "negative"),
    ("burstgpt", HEADERS["burstgpt"] + "\n1,ChatGPT,1,2.5,3,log\n", 2, "whole number"),
    ("mooncake", GOOD["mooncake"] + '{"timestamp": 1, "input_length": "x", "output_length": 2}\n', 3, "input_length"),
    ("mooncake", GOOD["mooncake"] + "[1, 2]\n", 3, "not a JSON object"),
    ("mooncake", GOOD["mooncake"] + "{broken\n", 3, "Expecting"),
    ("jsonl", GOOD["jsonl"] + '{"arrival_s": NaN, "prompt_tokens": 1, "output_tokens": 2}\n', 4, "not finite"),
    ("jsonl", GOOD["jsonl"] + '{"arrival_s": 1, "prompt_tokens": true, "output_tokens": 2}\n', 4, "prompt_tokens"),
    ("jsonl", GOOD["jsonl"] + '{"arrival_s": 1, "prompt_tokens": 1.5, "output_tokens": 2}\n', 4, "whole number"),
    ("jsonl", GOOD["jsonl"] + '{"arrival_s": 1, "prompt_tokens": 3000000000, "output_tokens": 2}\n', 4, "not in 1"),
    ("jsonl", GOOD["jsonl"] + "[" * 100_000 + "\n", 4, "recursion"),
]


@pytest.mark.parametrize(("format", "text", "line", "message"), BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, format: str, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(WorkloadError) as caught:
        replayed(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:{line}: ")
    assert message in said
    assert FORMATS[format].expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (HEADERS["azure"] + "\n", "header and no requests"),
        ("a,b,c\n1,2,3\n", ":1: not a known trace format"),
        ('{"a": 1}\n', ":1: not a known trace format"),
        (GOOD["jsonl"].encode() + b"\xff\xfe\n", ":4: not UTF-8"),
        (b"x" * (MAX_LINE_BYTES + 1), ":1: line longer than"),
    ],
)
def test_files_that_are_no_traces(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(WorkloadError, match=message) as caught:
        replayed(path)
    assert str(path) in str(caught.value)


def test_missing_file_folder_and_wrong_format(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        replayed(tmp_path / "absent.csv")
    with pytest.raises(WorkloadError, match="cannot be read: Is a directory"):
        replayed(tmp_path)
    path = written(tmp_path, GOOD["azure"])
    with pytest.raises(WorkloadError, match=":1: no burstgpt header"):
        replayed(path, format="burstgpt")
    with pytest.raises(WorkloadError, match="did you mean 'azure'"):
        replayed(path, format="azur")


def test_requests_takes_the_first_and_asks_for_no_more_than_there_are(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD["jsonl"])
    assert len(replayed(path, requests=1).requests) == 1
    with pytest.raises(WorkloadError, match=r"requests is 3, but .* has only 2"):
        replayed(path, requests=3)


def test_scale_rate_and_stretched_times(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD["azure"])
    assert replayed(path, scale=0.1).requests[0].prompt_tokens == 37
    assert replayed(path, rate=2.0).arrivals == "Poisson, 2/s"
    stretched = replayed(path, arrivals="trace", rate=0.1)
    assert [request.arrival_s for request in stretched.requests] == pytest.approx([0.0, 10.0])
    with pytest.raises(WorkloadError, match="cannot stretch"):
        replayed(path, requests=1, arrivals="trace", rate=0.1)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    line = '{"arrival_s": 1, "prompt_tokens": 10, "output_tokens": 20}\n'
    path = written(tmp_path, line * 20_000)
    tracemalloc.start()
    try:
        assert sum(found.prompt_tokens for found in TraceReader(path)) == 200_000
        assert tracemalloc.get_traced_memory()[1] < len(line) * 20_000 / 4
    finally:
        tracemalloc.stop()


def test_recorded_traces_replay(shared_data: Path) -> None:
    code = realised(replayed(shared_data / "traces" / "azure_llm_2023_code.csv"))
    assert code.requests == 8819
    assert code.prompt_tokens_mean == pytest.approx(2048, rel=0.001)
    assert code.arrival_cv == pytest.approx(13.15, rel=0.001)
