"""PURE: RFC 9110 and its neighbours as functions."""
