"""download-gateway: the counted, logged way from a paid link to the file in the bucket."""

__version__ = "0.1.0"
