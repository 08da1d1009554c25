"""A package, so that no other distribution's `tests` stands in its place in the processes that tests start."""
