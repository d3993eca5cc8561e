"""The measured process: the only code that runs beside the model.

Standard library and the library under test, nothing else, so that the same files run in any environment's
Python and the memory of the process is the model's. Nothing here imports from the rest of ggufbench.
"""
