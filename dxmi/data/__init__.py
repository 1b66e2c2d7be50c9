"""Images, vectors and draws of densities as batches."""
