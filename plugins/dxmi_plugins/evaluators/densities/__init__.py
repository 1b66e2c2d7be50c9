"""Samples of a known density against its own: the evaluator, its distances, and the alignment of particles."""
