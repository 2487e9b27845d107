"""One file a revision; the library finds them here."""
