"""What survives a crash: the volume ledger, and what the lanes learned."""
