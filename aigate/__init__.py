"""aigate: a self-hosted AI gateway. Only the version lives here; importing the package must stay free of side effects."""

__version__ = "0.1.0"
