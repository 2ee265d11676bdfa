"""A user's data as a file that can be handed to them."""
