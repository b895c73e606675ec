"""What a client program brings of its own: a training loop that is counted, a loss, a transform."""
