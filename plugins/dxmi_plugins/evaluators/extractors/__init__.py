"""Feature extractors: what turns uint8 images into the features and logits that metrics read."""
