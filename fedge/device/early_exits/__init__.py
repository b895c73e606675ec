"""Early exits on a device: which labels it knows, the person's prior, thresholds, and what is reported of them."""
