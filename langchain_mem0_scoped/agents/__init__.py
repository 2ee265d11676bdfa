"""What ScopedMemoryMiddleware is made of. Needs the extra `agents`, except for `steps`, `tracing` and `turn`."""
