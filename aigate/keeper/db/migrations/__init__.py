"""Schema changes, one file a revision in `versions/` ("0001", "0002", …: their order is their name). Owns nothing else."""
