"""The paper's algorithm (MATH 3)."""
