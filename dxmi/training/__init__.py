"""A run of the game, from config to products."""
