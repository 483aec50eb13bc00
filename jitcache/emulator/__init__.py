"""A kernel's machine code for gfx942 or gfx950, carried out on the CPU, one wave at a time.

It answers one question that otherwise needs a GPU: does this code object, launched with these
argument bytes and buffers, write what it must? It knows the instructions that CK2stages kernels
are made of and refuses every other. Registers, LDS and scratch words start as garbage, every
access to memory is checked against the buffers that exist, and a wave runs until it meets a
barrier. What it does not model: time, the caches, and the order in which loads return (a missing
`s_waitcnt` goes unnoticed, as every load is there at once). Needs numpy.

Semantics are those of AMD's "CDNA3" and "CDNA4 Instruction Set Architecture" reference guides.
"""
