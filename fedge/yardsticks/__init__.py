"""What fedge refuses to do, so that it can be compared with: methods that move weights. Only a study may run them."""
