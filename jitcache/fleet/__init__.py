"""Building beyond one machine: plan files, workers, leases, engines (docs/fleet.md)."""
