"""The gateway measured beside nginx: `python -m bench`, or `make bench`. See docs/performance.md.

A C mock of a provider, a C load client, and what starts, drives, counts and reports. Nothing here is part of the gateway: the
gateway is started as its users start it, and is known only by its command line, its HTTP surface and its database file.
"""
