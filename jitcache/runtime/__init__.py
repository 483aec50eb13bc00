"""Loading and launching what was built: HIP driver, host shims, modules, MoE stages.

Nothing here is imported by `import jitcache`; `jitcache.load` imports what it needs.
"""
