"""What a device does with a stream: which frames it keeps, what it may train on, and what is counted of them."""
