"""Jinja2 templates of generated sources."""
