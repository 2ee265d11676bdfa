"""The tests. CONTRIBUTING.md lists the folders and the helper modules.

This is a package, so that `from tests.support import ...` finds no other project's. The folders below need no file.
"""
