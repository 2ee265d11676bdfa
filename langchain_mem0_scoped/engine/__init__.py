"""The engine: a mem0.Memory and a backend over any storage that keeps users apart."""

from ..mem0_compat import load_mem0

# The modules here extend mem0's classes, so mem0 must have been loaded, without telemetry, before they are.
load_mem0()
