"""Low-cost adaptation as a scenario says it: a label prior without labels, a head trained on features."""
