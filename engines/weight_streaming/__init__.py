"""Weights brought over the link whenever they are needed."""
