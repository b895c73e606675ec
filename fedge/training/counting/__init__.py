"""How the products of a training step are counted: a dry run, the operators' formulas, the counter."""
