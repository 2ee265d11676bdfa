"""What the package must reach: `python -m benchmarks`; recall on LoCoMo: `python -m benchmarks.locomo PATH`."""
