"""Networks without a game: score matching, DDPM, reconstruction."""
