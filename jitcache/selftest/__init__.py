"""Every kernel of a loaded module, run on a GPU or an emulator and compared with the reference.

Inputs and expected results are made by `jitcache.capture`, with torch in host memory. On
a GPU, device memory, the launch and the result's way back are HIP's, so a torch without ROCm will
do.
"""
