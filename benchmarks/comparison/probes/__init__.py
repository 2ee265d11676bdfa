"""One script for each package compared; each runs where only that package is installed."""
