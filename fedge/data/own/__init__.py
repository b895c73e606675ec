"""Data of one's own: the data folder, what its arrays may be, and what becomes one."""
