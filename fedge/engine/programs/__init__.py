"""Programs as text: executed under a name of their own, with the modules beside them."""
