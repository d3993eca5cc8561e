"""Entry point of `python -m ggufbench.cli`."""

from ggufbench.cli.app import main

main()
