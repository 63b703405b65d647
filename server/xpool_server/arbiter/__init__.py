"""Whose turn it is on a device.

A policy decides, without a clock or a lock; ``device.py`` keeps who waits and who has
the device. Workers take their turns through a page of memory that they share with
their node (``page.py``): in C++ (``native/arbiter.cpp``) or in Python (``turn.py``).
The policies here are the oracle of the ones in C++. See ``docs/adr/0039``.
"""
