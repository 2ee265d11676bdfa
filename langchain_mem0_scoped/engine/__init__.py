"""The embedded default: a mem0.Memory over one SQLite file, partitioned by user; reached through mem0's interfaces."""

from ..mem0_compat import load_mem0

# The modules here extend mem0's classes; it must have been loaded the quiet way before they do.
load_mem0()
