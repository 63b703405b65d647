"""The native half of the torch stub: built once per torch version, then cached."""
