"""The functions behind `import ggufbench`; use the names of that package, which are documented and stable."""
