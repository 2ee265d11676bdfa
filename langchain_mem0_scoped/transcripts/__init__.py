"""Transcripts: the exact messages of each session. The contract, the SQL store, and which store a client uses."""
