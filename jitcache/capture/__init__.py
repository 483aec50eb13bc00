"""Sample launches of every family, with random inputs and the expected result (docs/capture.md).

What `jitcache capture` is made of: which launches stand for a family, what their buffers hold,
how their kernels come from the store, and how they are written.
"""
