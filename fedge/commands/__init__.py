"""The commands of `fedge`, a file per command; fedge.cli puts them together."""
