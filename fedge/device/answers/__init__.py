"""What a device says of itself: which network answers, what the factory model would have answered, and the report."""
