"""What this package and the alternatives do when asked the same questions, found out by running each of them."""
