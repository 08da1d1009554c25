"""Mails to buyers: composed from an order, its links and the shop's brand. No I/O but the package's own templates."""
