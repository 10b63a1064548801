"""Experiments that are shipped: one YAML file each, run by name."""
