"""Benchmarks and a regression gate for GGUF models on your own machine."""

__version__ = "0.1.0"
