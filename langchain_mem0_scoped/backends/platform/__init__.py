"""mem0's hosted platform: its requests and responses, how they are sent, and the backend that uses them."""
