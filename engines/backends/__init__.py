"""Below the cut: what runs a `StepPlan`. `sim` places ops on time lines, `torch_backend` computes them for real."""
