"""A package, so that `from tests.support import ...` finds no other project's; the folders below need no file."""
