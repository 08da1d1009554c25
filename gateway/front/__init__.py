"""What every front door shares: addresses, intake, pages and refusals. No door's library is here."""
