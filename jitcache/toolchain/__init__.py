"""Toolchains: where the compiler, HIP headers, device libraries and CK are."""
