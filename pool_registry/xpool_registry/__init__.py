"""Pool registry: what the pool holds, who has a lease, where the next job goes."""
