"""The management API, `/api/v1`: what the shop's own people and programs do with links and orders."""
