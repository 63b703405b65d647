"""Pool registry: what the pool holds, who holds a lease on it, and where the next job goes."""
