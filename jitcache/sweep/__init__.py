"""Kernels under many sets of back-end flags, from bitcode that is kept."""
