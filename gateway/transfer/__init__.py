"""Byte movers: how bytes go from an opened body to a client's socket, and how many arrived."""
