"""CuPy's drop-in: ``import cupy`` gives arrays that live in the pool.

``finder`` makes the modules ``cupy`` and ``cupyx`` out of CuPy's own table of names;
``device`` sends; everything else decides what a call means before it is sent.
"""
