"""Running a chain: rollouts, chains on a density, log-weights, diagnostics."""
