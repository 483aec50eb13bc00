"""The catalog of kernels, and the text of what builds them."""
