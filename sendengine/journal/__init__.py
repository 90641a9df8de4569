"""What survives a crash: jobs and requests until they settle, the volume ledger, and what the lanes learned."""
