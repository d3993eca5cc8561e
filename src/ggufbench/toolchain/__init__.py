"""Environments, builds and exported commits."""
