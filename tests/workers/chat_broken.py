"""A provider's module that cannot be imported."""

raise ImportError("this one needs what is not there")
