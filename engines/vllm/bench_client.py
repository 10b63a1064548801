"""vLLM's own benchmark client, run in vLLM's environment: `python -P bench_client.py --base-url ... --result-dir ...`.

Its command line is started by hand because the CPU build's distribution is not called what `vllm bench` looks for.
"""

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
