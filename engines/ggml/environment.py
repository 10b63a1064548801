"""Where ggml is found: in the environment that `make ggml-cpu` makes, compiled there for the machine it runs on."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
GGML_ENVIRONMENTS = tuple(folder / ".venv-ggml" / "bin" / "python" for folder in (Path(), CHECKOUT))
