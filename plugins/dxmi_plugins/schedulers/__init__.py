"""Few-step schedulers."""
