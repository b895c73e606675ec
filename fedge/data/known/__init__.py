"""What the data sets that fedge knows by name lie in: files, how they are fetched and read, their classes."""
