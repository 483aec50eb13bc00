"""Who runs workers: Slurm, Kubernetes, Dask, or this machine. None is a scheduler of ours."""
