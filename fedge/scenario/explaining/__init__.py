"""What is wrong with a scenario, in one line for a person."""
