"""Protocol adapters: each maps its wire to the one message and its errors by the one table."""
