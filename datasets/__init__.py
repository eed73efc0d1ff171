"""Data set builders. Run from the repository root: `python -m datasets.build --help`."""
