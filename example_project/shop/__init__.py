"""The shop: people upload orders as CSV, jobs import them, send receipts and report on the sales."""
