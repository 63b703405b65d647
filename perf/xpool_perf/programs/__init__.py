"""Scripts that a scenario starts; each prints its figures as one JSON line."""
