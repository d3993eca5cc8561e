"""Pure functions on numbers and text: no files, no processes, no clocks."""
