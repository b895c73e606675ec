"""Who holds what: partitioners, the order of recordings, and what a person should know of the outcome."""
