"""The steps of a request in their order; speaks to the outside only through gateway.ports."""
