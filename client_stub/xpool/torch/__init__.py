"""PyTorch on a remote device: ``cuda`` by the native library, ``xpool`` in Python."""
