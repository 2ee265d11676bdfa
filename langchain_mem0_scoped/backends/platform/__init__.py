"""mem0's hosted platform."""
