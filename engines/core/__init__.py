"""The control plane: integers only.

Decides which request runs when and where its KV lives. No tensors, no threads, no wall clock (only `clock.py` reads
time), so the same code serves a real GPU, the paced emulation and the simulator.
"""
