"""PURE: the kinds of shops, each a module: whether a webhook is genuine, and what it says of an order."""
