"""Known densities: targets with exact answers."""
