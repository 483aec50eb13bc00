"""Manifests of deployments, as package data."""
