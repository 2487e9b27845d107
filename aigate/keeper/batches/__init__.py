"""Batches: many requests of one file, each made through the node's own data plane, whatever dies in between."""
