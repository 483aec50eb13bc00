"""Compile what the plan asks for: ninja, measured edges, progress, and honest failures."""
