"""Images against reference images."""
