"""EIF's and EMP's experiments on streams."""
