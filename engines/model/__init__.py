"""What to compute: shapes of the Llama and OPT families, weights, layers, sampling, and the oracle that checks them.

Not here: when to compute it (engines.core) and on which unit (engines.backends). Nothing here holds a KV cache.
`config` is free of torch, so that listing models is instant; import the other modules where tensors are needed.
"""
