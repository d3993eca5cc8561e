"""A provider's module that cannot be imported."""

raise ImportError("a dependency is missing")
