"""Scenarios that measure the pool against the same work done locally."""
