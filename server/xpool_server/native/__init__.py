"""The native executor: C++ sources, their build, and the library seen from Python."""
