"""The measured process: the only code that runs next to the model.

It uses the standard library and the library under test only, so that the same files run in the Python of any
environment and the memory of the process is the model's. Nothing here imports from the rest of ggufbench.
"""
