"""The sizes of a model so small that its bytes are counted by hand."""

from engines.core.memory import ModelSizes

SIZES = ModelSizes(
    layers=4,
    matrices=((10, 30), (10, 10), (10, 40), (20, 10)),
    bytes_per_parameter=2,
    kv_bytes_per_token=40,
    kv_heads=2,
    head_dim=5,
    embedding_bytes=1000,
    fixed_bytes=500,
    head_bytes=300,
    tied_head=False,
)
