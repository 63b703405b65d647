"""What client and server share about arrays: values, and the table of operations."""
