"""Control plane: the gRPC contract with the registry and the lease token."""
