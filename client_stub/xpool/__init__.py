"""Run AI jobs, unchanged, on accelerators that stand elsewhere."""
