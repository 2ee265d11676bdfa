"""Where the messages of conversations are kept, word for word."""
