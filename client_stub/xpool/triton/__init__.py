"""Triton over remote tensors: compiled here, launched where the tensors are."""
