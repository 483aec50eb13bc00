"""Plans: which kernels a deployment needs, as AITER's dispatch decides, and why."""
