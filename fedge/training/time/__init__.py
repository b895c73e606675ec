"""What a training step takes on the machine at hand: its shape, timings of its like, and what is learnt from them."""
