"""pytest plugin: the options, the fixture `gguf_case`, the results and the gate."""
