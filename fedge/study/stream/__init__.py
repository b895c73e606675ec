"""A study whose data come in streams: near-future accuracy per arm, and around each drift."""
